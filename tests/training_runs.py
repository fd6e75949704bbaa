"""What tests of training runs share: commands, logs, a clock."""

import json
import sys
import time


def alone(*arguments):
    """The command that trains in one process."""
    return [sys.executable, "-m", "crnn_ext", "train", *map(str, arguments)]


def entries(folder, event):
    """What the log of a run has of an event."""
    found = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [entry for entry in found if entry["event"] == event]


def logged_steps(folder):
    """How many steps the log of a run has, which may not have begun."""
    log = folder / "log.jsonl"
    return log.read_text().count('"event": "step"') if log.exists() else 0


def wait_for_steps(process, folder, steps):
    """Until a run in another process has logged so many, or is over."""
    while logged_steps(folder) < steps and process.poll() is None:
        time.sleep(0.005)


class Clock:
    """In the place of the module `time`: stands still until it is moved."""

    now = 100.0

    def monotonic(self):
        return self.now
