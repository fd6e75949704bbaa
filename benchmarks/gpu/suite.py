"""The build for the card that is there, and the whole pytest suite on it."""

import importlib.util
import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from stages import LateError, NotAvailableError, Outcome, Run

_MOST_NAMES = 6


def build(run: Run) -> Outcome:
    """In place; in a dry run beside the checkout, whose own libraries stay as they are."""
    where = ["--inplace"]
    if run.dry_run:
        where = ["--build-lib", run.work / "lib", "--build-temp", run.work / "objects"]
    result = run.python(
        "setup.py", "--quiet", "build_ext", *where, CRNN_EXT_CUDA="1", TORCH_CUDA_ARCH_LIST=run.architecture
    )
    if result.status != 0:
        return Outcome("failed", result.reason())
    return Outcome("ok", f"compute capability {run.architecture}")


def tests(run: Run) -> Outcome:
    """Where there is no GPU, no more than their collection."""
    if importlib.util.find_spec("pytest") is None:
        raise NotAvailableError("pytest is not installed")
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Also for a pytest that a test starts.
    environment = {"PYTEST_PLUGINS": "left_out"}
    if run.dry_run:
        result = run.python(*arguments, "--collect-only", **environment)
        collected = re.search(r"(\d+) tests? collected", result.output)
        state = "ok" if result.status == 0 and collected else "failed"
        detail = f"{collected.group(1)} tests collected" if collected else result.output.strip()[-200:]
        return Outcome(state, "; ".join([detail, *_left_out(result.output)]))

    report = run.work / "tests.xml"
    report.unlink(missing_ok=True)
    cores = len(os.sched_getaffinity(0))
    workers = min(4, cores // 4)
    if workers > 1 and importlib.util.find_spec("xdist") is not None:
        # Also because a fault on the GPU ends all later work of its process, which is then not the only one.
        arguments += ["-n", str(workers), "--dist", "loadfile"]
        environment["OMP_NUM_THREADS"] = str(cores // workers)
    try:
        result = run.python(*arguments, f"--junitxml={report}", CRNN_REQUIRE_CUDA="1", **environment)
    except LateError as late:
        return Outcome("failed", f"{late}; {_summary(report)}")
    parts = [_summary(report), *_left_out(result.output)]
    return Outcome("ok" if result.status == 0 else "failed", "; ".join(parts))


def _left_out(output: str) -> list[str]:
    modules = sorted(set(re.findall(r"^left out: (.+)", output, re.MULTILINE)))
    return [f"left out: {', '.join(modules)}"] if modules else []


def _summary(report: Path) -> str:
    """How many tests ended how, and the names of some that failed."""
    if not report.is_file():
        return "no test's result is known"
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed = []
    for case in ET.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
            failed.append(f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}")
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    text = ", ".join(f"{count} {how}" for how, count in counts.items() if count)
    if failed:
        more = f" and {len(failed) - _MOST_NAMES} more" if len(failed) > _MOST_NAMES else ""
        text += f": {', '.join(failed[:_MOST_NAMES])}{more}"
    return text
