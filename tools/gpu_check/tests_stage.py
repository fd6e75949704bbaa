"""The tests stage: every test that runs on the device `cuda`."""

import ast
import json
import os
from collections.abc import Iterable
from pathlib import Path

from stages import ROOT, NotAvailableError, Outcome, Stage, StageTimeoutError

_MAX_NAMES = 6
_MAX_WORKERS = 8
# Prefixes of skip reasons that are no failure: hardware or data that a machine may lack. Packages are not
# among them, because they can be carried.
_EXCUSES = ("needs ",)
# In a rehearsal also limitations of the pretend GPU.
_REHEARSAL_EXCUSES = (*_EXCUSES, "not on the pretend device: ")


def find_cuda_modules() -> list[Path]:
    """Returns the test files with a test for the device `cuda`, without importing them."""
    return [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if _has_cuda_test(path)]


def _has_cuda_test(path: Path) -> bool:
    functions = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    return any(
        function.name.startswith("test_")
        and any(argument.arg == "device" for argument in function.args.args)
        and not any(_excludes_cuda(decorator) for decorator in function.decorator_list)
        for function in functions
    )


def _excludes_cuda(decorator: ast.expr) -> bool:
    """Returns whether this is `@pytest.mark.parametrize("device", [...])` without "cuda"."""
    match decorator:
        case ast.Call(args=[ast.Constant("device"), ast.List() as devices, *_]):
            return "cuda" not in ast.literal_eval(devices)
    return False


def tests(stage: Stage) -> Outcome:
    """Runs every test for `cuda`. A test that does not run fails the stage, unless it is excused."""
    if not stage.run.has_package("pytest"):
        raise NotAvailableError("pytest is not installed")
    return run_tests(stage, find_cuda_modules())


def run_tests(stage: Stage, modules: list[Path]) -> Outcome:
    arguments = ["-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider"]
    arguments += ["-p", "pytest_cuda", "--cuda-results", stage.records]
    environment = {"CRNN_REQUIRE_CUDA": "1"}
    cores = len(os.sched_getaffinity(0))
    workers = min(_MAX_WORKERS, cores // 2)
    if workers > 1 and stage.run.has_package("xdist"):
        # Most of the time of a test is Python, not the GPU.
        arguments += ["-n", str(workers), "--dist", "worksteal"]
        environment["OMP_NUM_THREADS"] = str(cores // workers)
    if stage.run.rehearsal:
        arguments += ["-p", "pretend_cuda.plugin"]
    # A module that cannot be imported must not keep the others from running.
    arguments += ["--continue-on-collection-errors", *modules]

    def known() -> CudaResults:
        return CudaResults(stage.records, stage.run.rehearsal)

    try:
        result = stage.python(*arguments, progress=lambda: known().summary(), **environment)
    except StageTimeoutError as error:
        return Outcome("failed", f"{error}; {known().summary(modules)}")
    failed = result.status != 0 or known().not_run(modules)
    return Outcome("failed" if failed else "ok", known().summary(modules))


class CudaResults:
    """The test results so far: {node id: (outcome, reason)}."""

    def __init__(self, records: Path, rehearsal: bool) -> None:
        self._excuses = _REHEARSAL_EXCUSES if rehearsal else _EXCUSES
        self._results: dict[str, tuple[str, str]] = {}
        for line in records.read_text().splitlines() if records.is_file() else []:
            if line.endswith("}"):  # a complete line
                record = json.loads(line)
                # The first failure of a test, in setup, call or teardown, determines its reason.
                if self._results.get(record["test"], ("passed",))[0] == "passed":
                    self._results[record["test"]] = record["outcome"], record["why"]

    def _reasons(self, outcome: str) -> dict[str, str]:
        return {test: why for test, (other, why) in self._results.items() if other == outcome}

    def _excused(self) -> dict[str, str]:
        return {test: why for test, why in self._reasons("skipped").items() if why.startswith(self._excuses)}

    def not_run(self, modules: Iterable[Path]) -> list[str]:
        """Returns the tests and modules that should have run and did not, with reasons."""
        excused = self._excused()
        skipped = {test: why for test, why in self._reasons("skipped").items() if test not in excused}
        ran = [*self._reasons("passed"), *self._reasons("failed"), *excused]
        seen = {Path(test.split("::")[0]).name for test in ran}
        reasons = {Path(test).name: why for test, why in self._reasons("not collected").items()}
        return [
            *(f"{_short(test)} ({why})" for test, why in skipped.items()),
            *(
                f"{module.name} ({reasons.get(module.name, 'no test of it')})"
                for module in modules
                if module.name not in seen
            ),
        ]

    def not_passed(self) -> list[dict[str, str]]:
        """Returns the entries of the results file."""
        return [
            {"test": test, "outcome": outcome, "why": why}
            for test, (outcome, why) in self._results.items()
            if outcome != "passed"
        ]

    def summary(self, modules: Iterable[Path] = ()) -> str:
        """Returns the counts, and the names of the tests that failed or did not run."""
        passed, failed, excused = self._reasons("passed"), self._reasons("failed"), self._excused()
        counts = [f"{len(tests)} {name}" for name, tests in (("passed", passed), ("failed", failed)) if tests]
        parts = [", ".join(counts) or "no test ran"]
        if failed:
            parts.append(f"failed: {_some(map(_short, failed))}")
        if modules and (missing := self.not_run(modules)):
            parts.append(f"NOT RUN: {_some(missing)}")
        if excused:
            parts.append(f"{len(excused)} not for this machine: {'; '.join(sorted({*excused.values()}))}")
        return "; ".join(parts)


def _short(test: str) -> str:
    return test.rpartition("/")[2].replace(".py::", "::")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
