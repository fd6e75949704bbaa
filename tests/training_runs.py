"""What tests of training runs share: commands, logs, a clock."""

import json
import sys


def alone(*arguments):
    """The command that trains in one process."""
    return [sys.executable, "-m", "crnn_ext", "train", *map(str, arguments)]


def entries(folder, event):
    """What the log of a run has of an event."""
    found = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [entry for entry in found if entry["event"] == event]


class Clock:
    """In the place of the module `time`: stands still until it is moved."""

    now = 100.0

    def monotonic(self):
        return self.now
