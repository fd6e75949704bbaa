"""What a hostile file may hold."""

from pathlib import Path


class MaliciousPickle:
    """A pickle of it writes the file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "code ran")
