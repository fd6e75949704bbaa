"""The results file, updated during the run, so that an interrupted run leaves what it had."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from rows import Row, same_row

UNFINISHED = "unfinished"


class Results:
    """The results of one machine on one day."""

    def __init__(self, file: Path, content: dict) -> None:
        self.file = file
        self.content = content

    @classmethod
    def open(
        cls, folder: Path, machine: dict[str, object], today: str, rehearsal: bool, resumes: bool
    ) -> "Results":
        """Starts a new file, or resumes the day's last one of the same machine, sources and packages."""
        slug = re.sub(r"[^a-z0-9]+", "-", f"{machine['device']}-{today}".lower()).strip("-")
        files = [folder / f"{slug}.json"]
        while files[-1].exists():
            files.append(folder / f"{slug}-{len(files) + 1}.json")
        new = files.pop()
        content = {"rehearsal": rehearsal, "date": today, "machine": machine}
        for file in reversed(files if resumes else []):
            known = json.loads(file.read_text())
            if content.items() <= known.items():
                return cls(file, known)
        return cls(new, {**content, "stages": [], "tests": [], "rows": [], "aims": []})

    def put_stage(self, entry: dict[str, object], order: list[str]) -> None:
        """Adds the entry of a stage, replacing an earlier one."""
        others = [stage for stage in self.content["stages"] if stage["stage"] != entry["stage"]]
        self.content["stages"] = sorted([*others, entry], key=lambda stage: order.index(stage["stage"]))

    def put_rows(self, rows: Iterable[Row]) -> None:
        """Adds rows, replacing earlier ones of the same contender and shape."""
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
        """Writes atomically: after a kill, the file is either the old or the new one."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(temporary, self.file)
