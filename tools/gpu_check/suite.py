"""The build for the card that is there, and every test that needs a card."""

import ast
import json
import os
from collections.abc import Iterable
from pathlib import Path

import compile_times
from stages import ROOT, NotAvailableError, Outcome, Run, Stage, StageTimeoutError

WHEELS = ROOT / "build" / "wheels"
_MAX_NAMES = 6
_MAX_WORKERS = 8
# How the reasons begin to skip a test for what a machine may lack.
_EXCUSES = ("needs ",)
# And for what tests/pretend_cuda cannot do, which stands in for the GPU in a rehearsal.
_PRETEND_DEVICE = "not on the pretend device: "


def steps_file(run: Run) -> Path:
    return run.work / "compiler.steps"


def compiled(run: Run) -> list[float]:
    """The CPU seconds of each compiler, also of an earlier run whose files are still good."""
    return list(compile_times.steps(steps_file(run)).values())


def build(stage: Stage) -> Outcome:
    """In place; in a rehearsal beside the checkout, whose own libraries stay as they are."""
    run = stage.run
    where = ["--inplace"]
    if run.rehearsal:
        where = ["--build-lib", run.work / "lib", "--build-temp", run.work / "objects"]
    nvcc = run.nvcc()
    result = stage.python(
        "setup.py",
        "--quiet",
        "build_ext",
        *where,
        CRNN_EXT_CUDA="1",
        TORCH_CUDA_ARCH_LIST=run.architecture,
        CXX=str(compile_times.noted("c++", steps_file(run))),
        PYTORCH_NVCC=str(compile_times.noted(nvcc, steps_file(run))),
    )
    if result.status != 0:
        return Outcome("failed", result.reason())
    carried = _carried_packages(stage)
    return Outcome("ok", "; ".join([f"compute capability {run.architecture}", *carried]))


def _carried_packages(stage: Stage) -> list[str]:
    """Installs the wheels that `make gpu-wheels` fetched, for this run alone."""
    wheels = sorted(WHEELS.glob("*.whl"))
    if not wheels:
        return []
    options = ["--quiet", "--no-index", "--no-deps", "--upgrade", "--target", stage.run.site]
    result = stage.python("-m", "pip", "install", *options, *wheels)
    names = ", ".join(wheel.name.split("-")[0] for wheel in wheels)
    return [f"carried: {names}" if result.status == 0 else f"{names} cannot be installed: {result.reason()}"]


def test_modules() -> list[Path]:
    """Those with a test that takes the device `cuda`, found without importing any."""
    return [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if _needs_cuda(path)]


def _needs_cuda(path: Path) -> bool:
    functions = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    return any(
        function.name.startswith("test_")
        and any(argument.arg == "device" for argument in function.args.args)
        and not any(_names_other_devices(decorator) for decorator in function.decorator_list)
        for function in functions
    )


def _names_other_devices(decorator: ast.expr) -> bool:
    """`@pytest.mark.parametrize("device", [...])` without "cuda"."""
    match decorator:
        case ast.Call(args=[ast.Constant("device"), ast.List() as devices, *_]):
            return "cuda" not in ast.literal_eval(devices)
    return False


def tests(stage: Stage) -> Outcome:
    """Every test of the device `cuda`; each has to run, but for what this machine cannot have."""
    if not stage.run.has_package("pytest"):
        raise NotAvailableError("pytest is not installed")
    return run_tests(stage, test_modules())


def run_tests(stage: Stage, modules: list[Path]) -> Outcome:
    notes = stage.notes
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_cuda", "--cuda-results", notes]
    environment = {"CRNN_REQUIRE_CUDA": "1"}
    cores = len(os.sched_getaffinity(0))
    workers = min(_MAX_WORKERS, cores // 2)
    if workers > 1 and stage.run.has_package("xdist"):
        # Tests wait for Python far more than for the GPU.
        arguments += ["-n", str(workers), "--dist", "worksteal"]
        environment["OMP_NUM_THREADS"] = str(cores // workers)
    if stage.run.rehearsal:
        arguments += ["-p", "pretend_cuda.plugin"]
    # Or else a module that cannot be imported would keep the others from running.
    arguments += ["--continue-on-collection-errors", *modules]

    def known() -> Tests:
        return Tests(notes, stage.run.rehearsal)

    try:
        result = stage.python(*arguments, meanwhile=lambda: summary(known()), **environment)
    except StageTimeoutError as late:
        return Outcome("failed", f"{late}; {summary(known(), known().missing(modules))}")
    missing = known().missing(modules)
    failed = result.status != 0 or missing
    return Outcome("failed" if failed else "ok", summary(known(), missing))


class Tests:
    """What is known of the tests: {node id: (outcome, why)}."""

    def __init__(self, notes: Path, rehearsal: bool) -> None:
        self._excuses = (*_EXCUSES, *([_PRETEND_DEVICE] if rehearsal else []))
        lines = notes.read_text().splitlines() if notes.is_file() else []
        self.known: dict[str, tuple[str, str]] = {}
        for line in lines:
            if line.endswith("}"):
                note = json.loads(line)
                # What failed first is the reason for what comes behind it in the same test.
                if self.known.get(note["test"], ("passed",))[0] == "passed":
                    self.known[note["test"]] = note["outcome"], note["why"]

    def of(self, outcome: str) -> list[str]:
        return [test for test, (other, _) in self.known.items() if other == outcome]

    def why(self, test: str) -> str:
        return self.known[test][1]

    def excused(self) -> list[str]:
        """Skipped for what a machine may lack. A package is not among that: it can be carried."""
        return [test for test in self.of("skipped") if self.why(test).startswith(self._excuses)]

    def missing(self, modules: Iterable[Path]) -> list[str]:
        """What should have run and did not, and why."""
        excused = self.excused()
        skipped = [test for test in self.of("skipped") if test not in excused]
        seen = {Path(test.split("::")[0]).name for test in [*self.of("passed"), *self.of("failed"), *excused]}
        unseen = [module.name for module in modules if module.name not in seen]
        left_out = {Path(test).name: self.why(test) for test in self.of("not collected")}
        return [
            *(f"{_short(test)} ({self.why(test)})" for test in skipped),
            *(f"{name} ({left_out.get(name, 'no test of it')})" for name in unseen),
        ]

    def not_passed(self) -> list[dict[str, str]]:
        return [
            {"test": test, "outcome": outcome, "why": why}
            for test, (outcome, why) in self.known.items()
            if outcome != "passed"
        ]


def summary(tests: Tests, missing: Iterable[str] = ()) -> str:
    """How many tests ended how, and names of those that failed and of what did not run."""
    counts = {outcome: len(tests.of(outcome)) for outcome in ("passed", "failed")}
    parts = [", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "no test ran"]
    if failed := tests.of("failed"):
        parts.append(f"failed: {_some(map(_short, failed))}")
    if missing := list(missing):
        parts.append(f"NOT RUN: {_some(missing)}")
    if excused := tests.excused():
        reasons = sorted({tests.why(test) for test in excused})
        parts.append(f"{len(excused)} not for this machine: {'; '.join(reasons)}")
    return "; ".join(parts)


def _short(test: str) -> str:
    return test.rpartition("/")[2].replace(".py::", "::")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
