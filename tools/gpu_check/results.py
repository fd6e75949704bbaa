"""The file of results: written as results come, so that a run that is cut off leaves what it had."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from rows import Row, same_row

UNFINISHED = "unfinished"


class Results:
    """What is known of one machine on one day."""

    def __init__(self, file: Path, content: dict) -> None:
        self.file = file
        self.content = content

    @classmethod
    def of(
        cls, folder: Path, machine: dict[str, object], today: str, rehearsal: bool, resumes: bool
    ) -> "Results":
        """A whole run begins a file of its own; a part resumes the last one of the day.

        That has to be of the same machine, which includes the sources and the packages.
        """
        slug = re.sub(r"[^a-z0-9]+", "-", f"{machine['device']}-{today}".lower()).strip("-")
        files = [folder / f"{slug}.json"]
        while files[-1].exists():
            files.append(folder / f"{slug}-{len(files) + 1}.json")
        free = files.pop()
        content = {"rehearsal": rehearsal, "date": today, "machine": machine}
        for file in reversed(files if resumes else []):
            known = json.loads(file.read_text())
            if content.items() <= known.items():
                return cls(file, known)
        return cls(free, {**content, "stages": [], "tests": [], "rows": [], "aims": []})

    def put_stage(self, entry: dict[str, object], order: list[str]) -> None:
        """In the place of what was known of the stage."""
        others = [stage for stage in self.content["stages"] if stage["stage"] != entry["stage"]]
        self.content["stages"] = sorted([*others, entry], key=lambda stage: order.index(stage["stage"]))

    def put_rows(self, rows: Iterable[Row]) -> None:
        """In the place of the same contender's on the same shape."""
        rows = list(rows)
        others = [row for row in self.rows if not any(same_row(row, new) for new in rows)]
        self.content["rows"] = [*others, *rows]

    @property
    def stages(self) -> list[dict]:
        return self.content["stages"]

    @property
    def rows(self) -> list[Row]:
        return self.content["rows"]

    def write(self) -> None:
        """At once: a reader finds the old file or the new one, also after a kill."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(unfinished, self.file)
