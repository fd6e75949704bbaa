"""The log of a run: JSON Lines, one event a line."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from crnn_ext.ocr.data import DataIssue
from crnn_ext.ocr.system.atomic_write import add_filename_to_errors, atomic_write_bytes

from .callbacks import Callback, SkippedLines, StepMetrics, ValidationResult

LOG_FILE = "log.jsonl"


class JsonlLogger(Callback):
    """Writes `log.jsonl` to a folder: one object per event, with its name under the key "event".

    A resumed run first removes the events after the step at which it resumes.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_FILE
        self._file: TextIO | None = None

    def on_train_start(self, step: int, steps: int, skipped: Sequence[DataIssue]) -> None:
        """Opens the file and logs the lines that every epoch skips."""
        kept = self._lines_up_to(step) if step and self._path.exists() else []
        atomic_write_bytes(self._path, "".join(kept).encode())
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (`on_train_end` closes it)
        problems = [problem._asdict() for problem in skipped]
        self._write("resumed" if step else "started", {"step": step, "steps": steps, "left_out": problems})

    def on_message(self, text: str) -> None:
        """Messages are for the user; the log has none."""

    def on_step(self, step: StepMetrics) -> None:
        """Logs a step; values that are not finite become null."""
        self._write("step", asdict(step))

    def on_lines_skipped(self, report: SkippedLines) -> None:
        """Logs the skipped lines."""
        problems = [problem._asdict() for problem in report.unreadable]
        self._write(
            "left_out", {**vars(report), "infeasible": list(report.infeasible), "unreadable": problems}
        )

    def on_validation(self, validation: ValidationResult) -> None:
        """Logs all metrics."""
        evaluation = validation.evaluation
        self._write(
            "validation",
            {
                "step": validation.step,
                "epoch": validation.epoch,
                "best": validation.best,
                "seconds": evaluation.seconds,
                "unreadable": [line.name for line in evaluation.unreadable],
                "metrics": asdict(evaluation.metrics),
            },
        )

    def on_train_end(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, event: str, content: dict[str, Any]) -> None:
        assert self._file is not None
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in content.items()
        }
        with add_filename_to_errors(self._path):
            self._file.write(json.dumps({"event": event, **finite}) + "\n")
            self._file.flush()

    def _lines_up_to(self, step: int) -> list[str]:
        """The lines of the file up to a step; the last line may be truncated."""
        kept = []
        with open(self._path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                # The user may have edited the file: check the types.
                if isinstance(entry, dict) and isinstance(entry.get("step"), int) and entry["step"] <= step:
                    kept.append(line)
        return kept
