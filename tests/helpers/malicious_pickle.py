"""A pickle that runs code when it is loaded."""

from pathlib import Path


class MaliciousPickle:
    """Writes a file at `path` when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "code ran")
