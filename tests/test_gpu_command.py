"""`make gpu` as far as it goes without a GPU: the command, its stages and the file of results."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "gpu"


def gpu_command(*options, **environment):
    return subprocess.run(
        [sys.executable, FOLDER, *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def modules(monkeypatch):
    """Those that need no torch, by their names."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("stages", "compile_steps", "results", "drivers", "sanitizer")
    return {name: importlib.import_module(name) for name in names}


@pytest.fixture
def stages(modules):
    return modules["stages"]


@pytest.fixture
def run(stages, tmp_path):
    return stages.Run({"compute capability": "9.0"}, tmp_path)


@pytest.fixture
def stage(stages, run):
    return stages.Stage(run, "stage", 60)


def test_no_gpu():
    done = gpu_command(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    torch_here = f"torch {torch.__version__} in {sys.executable}"
    reason = "is a build for the CPU" if torch.version.cuda is None else "sees no GPU"
    assert done.stderr.strip() == (
        f"make gpu needs a GPU that torch can use, and {torch_here} {reason}; "
        "make gpu REHEARSAL=1 tries all else"
    )


def test_unknown_stages():
    done = gpu_command("--only", "tests,benchmark")
    assert done.returncode == 2
    assert "--only knows build, tests, drivers, bench, sanitizer, and not benchmark" in done.stderr


def test_the_whole_takes_less_than_nine_minutes(stages, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    command = importlib.util.spec_from_file_location("gpu_command", FOLDER / "__main__.py")
    main = importlib.util.module_from_spec(command)
    command.loader.exec_module(main)
    limits = main.LIMITS
    # Compilers that are still at work when the tests are done are waited for.
    first = max(limits["build"] + limits["tests"], main.COMPILE_SECONDS)
    rest = sum(seconds for name, seconds in limits.items() if name not in ("build", "tests"))
    graces = (len(limits) + 1) * stages.GRACE_SECONDS
    assert main.MACHINE_SECONDS + first + rest + graces < 540


SMALL, WIDE = [160, 64, 97, 40], [183, 90, 10241, 29]


def loss_row(contender, shape=SMALL, **fields):
    return {"op": "ctc_loss", "shape": shape, "contender": contender, "dtype": "float32", **fields}


MACHINE = {"device": "A GPU", "torch": "2.11"}


def test_a_whole_run_has_a_file_of_its_own_and_a_part_goes_on_with_the_last(modules, tmp_path):
    def opened(machine=MACHINE, today="2026-01-02", goes_on=False):
        results = modules["results"].Results.of(tmp_path, machine, today, False, goes_on)
        results.write()
        return results.file.name

    assert opened(goes_on=True) == "a-gpu-2026-01-02.json"
    assert opened() == "a-gpu-2026-01-02-2.json"
    assert opened(goes_on=True) == "a-gpu-2026-01-02-2.json"
    assert opened({**MACHINE, "torch": "2.13"}, goes_on=True) == "a-gpu-2026-01-02-3.json"
    assert opened(goes_on=True) == "a-gpu-2026-01-02-2.json"
    assert opened(today="2026-01-03", goes_on=True) == "a-gpu-2026-01-03.json"


def test_new_results_take_the_place_of_old_ones(modules, tmp_path):
    order = ["build", "tests", "bench"]
    results = modules["results"].Results.of(tmp_path, MACHINE, "2026-01-02", False, False)
    results.put_stage({"stage": "bench", "state": "unfinished"}, order)
    results.put_stage({"stage": "build", "state": "ok"}, order)
    results.put_stage({"stage": "bench", "state": "ok"}, order)
    assert results.stages == [{"stage": "build", "state": "ok"}, {"stage": "bench", "state": "ok"}]
    results.put_rows([loss_row("crnn_ext", note="late"), loss_row("torch")])
    results.put_rows([loss_row("crnn_ext", WIDE), loss_row("crnn_ext")])
    assert results.rows == [loss_row("torch"), loss_row("crnn_ext", WIDE), loss_row("crnn_ext")]


def test_a_limit_below_what_compilers_need_is_too_short(modules):
    """A build in 80 s, of which one file takes 112, and drivers in 60 s."""
    too_short = modules["compile_steps"].too_short
    assert too_short(80, [112.0, 30.0, 20.0]) == (
        "the limit of 80 s is too short: 3 compiler steps of 162 CPU s, "
        "the longest 112 s, need 140 s on 16 cores"
    )
    assert too_short(60, [149.0, 9.0])
    assert too_short(60, [10.0] * 80)  # all cores together take longer than the limit
    assert too_short(60, [10.0] * 16, beside=700.0)
    assert too_short(60, [10.0] * 16, beside=500.0) is None
    assert too_short(150, [112.0, 30.0, 20.0]) is None
    assert too_short(1, []) is None


def test_compiler_steps_are_noted(modules, tmp_path):
    file = tmp_path / "some.steps"
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\ni=0; while [ $i -lt 100000 ]; do i=$((i+1)); done\nexit ${1%.x}\n")
    compiler.chmod(0o755)
    noted = modules["compile_steps"].noted(str(compiler), file)
    assert subprocess.run([noted, "0.x", "-o", "a.o"], check=False).returncode == 0
    assert subprocess.run([noted, "0.x", "-o", "b.o"], check=False).returncode == 0
    assert subprocess.run([noted, "3.x", "-o", "c.o"], check=False).returncode == 3
    assert subprocess.run([noted, "0.x"], check=False).returncode == 0
    steps = modules["compile_steps"].steps(file)
    assert list(steps) == ["a.o", "b.o"]
    assert all(seconds > 0.005 for seconds in steps.values())


def test_a_stage_that_hangs_costs_its_own_time_only(stages, run):
    hanging = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); time.sleep(60)"
    stage = stages.Stage(run, "hangs", 0.3)
    outcome = stages.perform(stage, lambda stage: stage.python("-c", hanging))
    assert outcome.state == "failed"
    assert "stopped after its time" in outcome.detail
    outcome = stages.perform(
        stages.Stage(run, "next", 30),
        lambda stage: stages.Outcome("ok", stage.python("-c", "print(7)").output),
    )
    assert outcome == ("ok", "7\n")
    assert "print(7)" in (run.work / "next.log").read_text()


def test_a_stage_that_raises(stages, stage):
    def missing(stage):
        raise stages.NotAvailableError("no tool")

    assert stages.perform(stage, missing) == ("not available", "no tool")
    assert stages.perform(stage, lambda stage: 1 / 0) == ("failed", "ZeroDivisionError: division by zero")


def test_output_is_kept_while_a_command_runs(stages, run, monkeypatch):
    monkeypatch.setattr(stages, "_TELL_SECONDS", 0.05)
    seen = []

    def meanwhile():
        seen.extend(file.read_text() for file in run.work.glob("stage-*.part"))
        return "so far"

    told = []
    stage = stages.Stage(run, "stage", 60, tell=lambda stage, detail: told.append(detail))
    script = "import time; print('begun'); time.sleep(0.8)"
    assert stage.python("-c", script, meanwhile=meanwhile).output == "begun\n"
    assert "begun\n" in seen
    assert told[0] == "so far"
    assert not list(run.work.glob("*.part"))


class NothingToCompile:
    def failures(self):
        return []


@pytest.fixture
def sanitized(modules, stages, run, monkeypatch):
    """The outcome with a compute-sanitizer that reports what its name says, and drivers that are never run.

    As the real one: the exit status is that of the driver, which fails where its kernel was ended.
    """
    tool = run.work / "compute-sanitizer"
    tool.write_text(
        '#!/bin/sh\ncase "$*" in $REPORTED) count=1;; *) count=0;; esac\n'
        'case $2 in racecheck) echo "RACECHECK SUMMARY: $count hazards displayed (0 errors, 0 warnings)";;\n'
        '*) echo "ERROR SUMMARY: $count errors";; esac\nexit $count\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{run.work}:{os.environ['PATH']}")
    for driver in modules["drivers"].FOLDER.glob("*.cu"):
        (run.work / f"driver_{driver.stem}").touch()

    def sanitized():
        stage = stages.Stage(run, "sanitizer", 60)
        return stages.perform(stage, lambda stage: modules["sanitizer"].sanitizer(stage, NothingToCompile()))

    return sanitized


def test_planted_faults_that_no_tool_reports_are_named(modules, sanitized, monkeypatch):
    monkeypatch.setenv("REPORTED", "*racecheck*planted_faults*barrier*")
    outcome = sanitized()
    faults = [name for name, faulty in modules["drivers"].fault_cases().items() if faulty]
    unseen = [name for name in faults if "barrier" not in name]
    assert len(faults) > 10
    assert outcome.state == "ok"
    assert f"{len(faults) - len(unseen)} of {len(faults)} planted faults reported" in outcome.detail
    assert outcome.detail.endswith(f"by no tool: {', '.join(unseen)}")


def test_a_report_on_a_sound_driver_is_a_failure(sanitized, monkeypatch):
    monkeypatch.setenv("REPORTED", "*initcheck*driver_greedy")
    outcome = sanitized()
    assert outcome.state == "failed"
    assert outcome.detail.startswith("greedy under initcheck: reported; ")


def test_a_compute_sanitizer_that_does_not_work_here(run, sanitized):
    (run.work / "compute-sanitizer").write_text("#!/bin/sh\necho 'Error: Device not supported'\nexit 1\n")
    assert sanitized() == (
        "not available",
        "compute-sanitizer does not work here: Error: Device not supported",
    )
