"""Helpers for tests of training runs: commands, logs, a recorder."""

import itertools
import json
import sys
import time

TINY = {"width": 0.05, "hidden": 16, "workers": 0, "batch_pixels": 32 * 128 * 8, "log_every": 1, "augment": 0}


def train_command(*arguments):
    """Return the command that trains in one process."""
    return [sys.executable, "-m", "crnn_ext", "train", *map(str, arguments)]


def log_entries(folder, event):
    """Return the log entries of a run for an event."""
    found = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [entry for entry in found if entry["event"] == event]


def logged_steps(folder):
    """Return the number of logged steps, 0 if there is no log yet."""
    log = folder / "log.jsonl"
    return log.read_text().count('"event": "step"') if log.exists() else 0


def wait_for_steps(process, folder, steps):
    """Wait until a run in another process has logged this many steps or has ended."""
    while logged_steps(folder) < steps and process.poll() is None:
        time.sleep(0.005)


class Recorder:
    """Callback that records all events."""

    def __init__(self):
        self.notes, self.steps, self.reports, self.validations = [], [], [], []

    def on_train_start(self, step, steps, skipped):
        self.first, self.total, self.always_skipped = step, steps, skipped

    def on_message(self, text):
        self.notes.append(text)

    def on_step(self, step):
        self.steps.append(step)

    def on_lines_skipped(self, report):
        self.reports.append(report)

    def on_validation(self, validation):
        self.validations.append(validation)

    def on_train_end(self):
        self.over = True


def stop_after(steps):
    """Return a `stop` function that ends a run after this many steps."""
    asked = itertools.count()
    return lambda: next(asked) == steps


def run_training(folder, data, *, callbacks=(), **settings):
    """Train in this process and return the recorder, with the result as `outcome`."""
    from crnn_ext.ocr.training import TrainingConfig, train  # needs cv2, which tests may lack

    recorder = Recorder()
    options = {
        name: settings.pop(name) for name in ("resume", "criterion", "stop", "device") if name in settings
    }
    config = TrainingConfig(**{"data": str(data), "epochs": 1, **TINY, **settings})
    recorder.outcome = train(config, folder, callbacks=[recorder, *callbacks], **options)
    return recorder
