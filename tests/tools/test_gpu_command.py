"""`make gpu` without a GPU: the command, its stages and the results file."""

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import build_stage
import compile_times
import drivers
import machine
import pytest
import sanitizer
import stages
import torch
from helpers.gpu_command import FOLDER, WIDE, gpu_command, loss_row, toolkit
from results import Results


@pytest.fixture
def run(tmp_path):
    return stages.Run({"compute capability": "9.0"}, tmp_path)


@pytest.fixture
def stage(run):
    return stages.Stage(run, "stage", 60)


def test_without_gpu():
    done = gpu_command(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    torch_here = f"torch {torch.__version__} in {sys.executable}"
    reason = "is a CPU build" if torch.version.cuda is None else "sees no GPU"
    assert done.stderr.strip() == (
        f"make gpu needs a GPU, but {torch_here} {reason}; "
        "try another Python with make gpu VENV=0 PYTHON=python3, or rehearse with make gpu REHEARSAL=1"
    )


def test_unknown_stages():
    done = gpu_command("--only", "tests,benchmark")
    assert done.returncode == 2
    assert "--only must be some of build, tests, drivers, bench, sanitizer, got benchmark" in done.stderr


@pytest.fixture
def main():
    """The module tools/gpu_check/__main__.py."""
    command = importlib.util.spec_from_file_location("gpu_main", FOLDER / "__main__.py")
    main = importlib.util.module_from_spec(command)
    command.loader.exec_module(main)
    return main


def test_total_time_is_below_nine_minutes(main):
    limits = main.LIMITS
    # Later stages wait for the compilers.
    first = max(sum(limits[name] for name in main.BESIDE_COMPILERS), main.COMPILE_SECONDS)
    rest = sum(seconds for name, seconds in limits.items() if name not in main.BESIDE_COMPILERS)
    graces = (len(limits) + 1) * stages.GRACE_SECONDS
    assert main.MACHINE_SECONDS + first + rest + graces < 540


MACHINE = {"device": "A GPU", "torch": "2.11", "sources": "01"}


def test_results_file_is_new_or_resumed(tmp_path):
    def opened(machine=MACHINE, today="2026-01-02", resumes=False):
        results = Results.open(tmp_path, machine, today, False, resumes)
        results.write()
        return results.file.name

    assert opened(resumes=True) == "a-gpu-2026-01-02.json"
    assert opened() == "a-gpu-2026-01-02-2.json"
    assert opened(resumes=True) == "a-gpu-2026-01-02-2.json"
    assert opened({**MACHINE, "torch": "2.13"}, resumes=True) == "a-gpu-2026-01-02-3.json"
    assert opened({**MACHINE, "sources": "02"}, resumes=True) == "a-gpu-2026-01-02-4.json"
    assert opened(resumes=True) == "a-gpu-2026-01-02-2.json"
    assert opened(today="2026-01-03", resumes=True) == "a-gpu-2026-01-03.json"


def test_new_results_replace_old_ones(tmp_path):
    order = ["build", "tests", "bench"]
    results = Results.open(tmp_path, MACHINE, "2026-01-02", False, False)
    results.put_stage({"stage": "bench", "state": "unfinished"}, order)
    results.put_stage({"stage": "build", "state": "ok"}, order)
    results.put_stage({"stage": "bench", "state": "ok"}, order)
    assert results.stages == [{"stage": "build", "state": "ok"}, {"stage": "bench", "state": "ok"}]
    results.put_rows([loss_row("crnn_ext", note="late"), loss_row("torch")])
    results.put_rows([loss_row("crnn_ext", WIDE), loss_row("crnn_ext")])
    assert results.rows == [loss_row("torch"), loss_row("crnn_ext", WIDE), loss_row("crnn_ext")]


def test_limit_below_the_compile_time():
    limit_problem = compile_times.limit_problem
    assert limit_problem(80, [112.0, 30.0, 20.0]) == (
        "the limit of 80 s is too short: 3 compiler steps of 162 CPU s, "
        "the longest 112 s, need 140 s on 16 cores"
    )
    assert limit_problem(60, [149.0, 9.0])
    assert limit_problem(60, [10.0] * 80)  # on all cores together
    assert limit_problem(60, [10.0] * 16, before=700.0)
    assert limit_problem(60, [10.0] * 16, before=500.0) is None
    assert limit_problem(150, [112.0, 30.0, 20.0]) is None
    assert limit_problem(1, []) is None


def test_compiler_steps_are_recorded(tmp_path):
    file = tmp_path / "some.steps"
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\ni=0; while [ $i -lt 100000 ]; do i=$((i+1)); done\nexit ${1%.x}\n")
    compiler.chmod(0o755)
    wrapper = compile_times.wrap_compiler(str(compiler), file)
    assert subprocess.run([wrapper, "0.x", "-o", "a.o"], check=False).returncode == 0
    assert subprocess.run([wrapper, "0.x", "-o", "b.o"], check=False).returncode == 0
    assert subprocess.run([wrapper, "3.x", "-o", "c.o"], check=False).returncode == 3
    assert subprocess.run([wrapper, "0.x"], check=False).returncode == 0
    seconds = compile_times.step_seconds(file)
    assert len(seconds) == 2
    assert min(seconds) > 0.005


@pytest.mark.parametrize("handler", ["SIG_DFL", "SIG_IGN"])
def test_hanging_stage_is_stopped(run, monkeypatch, handler):
    monkeypatch.setattr(stages, "GRACE_SECONDS", 0.2)
    hanging = f"import signal, time; signal.signal(signal.SIGINT, signal.{handler}); time.sleep(60)"
    stage = stages.Stage(run, "hangs", 1)
    outcome = stages.run_stage(stage, lambda stage: stage.python("-c", hanging))
    assert outcome.state == "failed"
    assert "stopped at its time limit" in outcome.detail
    outcome = stages.run_stage(
        stages.Stage(run, "next", 30),
        lambda stage: stages.Outcome("ok", stage.python("-c", "print(7)").output),
    )
    assert outcome == ("ok", "7\n")
    assert "print(7)" in (run.work / "next.log").read_text()


def test_stage_that_raises(stage):
    def missing(stage):
        raise stages.NotAvailableError("no tool")

    assert stages.run_stage(stage, missing) == ("not available", "no tool")
    assert stages.run_stage(stage, lambda stage: 1 / 0) == ("failed", "ZeroDivisionError: division by zero")


def test_output_and_progress_of_a_running_command(run, monkeypatch):
    monkeypatch.setattr(stages, "_PROGRESS_SECONDS", 0.05)
    seen = []

    def progress():
        seen.extend(file.read_text() for file in run.work.glob("stage-*.part"))
        return "so far"

    reported = []
    stage = stages.Stage(run, "stage", 60, on_progress=lambda stage, detail: reported.append(detail))
    script = "import time; print('begun'); time.sleep(0.8)"
    assert stage.python("-c", script, progress=progress).output == "begun\n"
    assert "begun\n" in seen
    assert reported[0] == "so far"
    assert not list(run.work.glob("*.part"))


def test_benchmarks_wait_for_the_compilers(main, run, monkeypatch):
    calls = []

    class Compilation:
        def __init__(self, run, limit, wanted):
            calls.append(f"compile: {wanted}")

        def wait(self):
            calls.append("wait")

        def stop(self):
            calls.append("stop")

    monkeypatch.setattr(main, "Compilation", Compilation)
    monkeypatch.setattr(main, "run_and_record", lambda run, name, *_: calls.append(name))
    main.run_stages(run, ["build", "bench", "sanitizer"], results=None)
    assert calls == ["compile: True", "build", "wait", "bench", "wait", "sanitizer", "stop"]


@pytest.mark.parametrize("rehearsal", [False, True])
def test_required_stages(main, tmp_path, rehearsal):
    run = stages.Run({"compute capability": "9.0"}, tmp_path, rehearsal)
    failing = {stage for stage in main.LIMITS if main.is_failure(stage, "not available", run)}
    assert failing == (set() if rehearsal else {"build", "tests", "drivers"})
    assert all(main.is_failure(stage, "failed", run) for stage in main.LIMITS)
    assert not any(
        main.is_failure(stage, state, run) for stage in main.LIMITS for state in ("ok", "unfinished")
    )


def test_machine_description_does_not_hang(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_SECONDS", 0.1)
    assert machine.output_of("sleep", "60") == "unknown"
    assert machine.output_of("echo", "580.1") == "580.1"
    assert machine.output_of("no-such-program") == "not installed"


def test_machine_description_of_sources_and_toolkit(monkeypatch, tmp_path):
    """It names the toolkit that setup.py uses, even if another nvcc comes first on PATH."""
    monkeypatch.setenv("CUDA_HOME", toolkit(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{toolkit(tmp_path / 'other')}/bin:{os.environ['PATH']}")
    assert machine.describe()["CUDA toolkit"] == str(tmp_path / "home")
    assert all((machine.ROOT / source).exists() for source in machine._SOURCES)

    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(machine, "_SOURCES", ("one.py", "folder"))
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "folder" / "__pycache__").mkdir(parents=True)
    (tmp_path / "folder" / "two.cu").write_text("2")
    known = machine.hash_of_sources()
    (tmp_path / "folder" / "__pycache__" / "two.pyc").write_text("3")
    (tmp_path / "folder" / "_C.so").write_text("4")
    assert machine.hash_of_sources() == known
    (tmp_path / "folder" / "two.cu").write_text("5")
    assert machine.hash_of_sources() != known


def test_build_and_drivers_use_the_same_nvcc(tmp_path):
    """Both wrap the nvcc of the toolkit."""
    home = toolkit(tmp_path / "toolkit")
    run = stages.Run({"compute capability": "9.0", "CUDA toolkit": home}, tmp_path)
    run_python = {}

    class Build(stages.Stage):
        def python(self, *arguments, **environment):
            run_python.update(environment)
            return stages.Result(0, "")

    build_stage.build(Build(run, "build", 60))
    drivers.Compilation(run, limit=60, wanted=True).wait()
    for wrapper in (run.work / "drivers-nvcc", Path(run_python["PYTORCH_NVCC"])):
        assert f"{home}/bin/nvcc " in wrapper.read_text()


def test_missing_driver_is_a_failure(tmp_path):
    """nvcc succeeds without writing an output."""
    machine = {"compute capability": "9.0", "CUDA toolkit": toolkit(tmp_path / "toolkit")}
    run = stages.Run(machine, tmp_path)
    compilation = drivers.Compilation(run, limit=60, wanted=True)
    names = drivers.names()
    assert len(names) > 5
    reasons = [f"{name} does not compile: nvcc wrote no output" for name in names]
    assert drivers.drivers(stages.Stage(run, "drivers", 60), compilation) == ("failed", "; ".join(reasons))
    nothing = drivers.Compilation(run, limit=60, wanted=False)
    assert nothing.failures() == {name: f"{name} was not compiled" for name in names}


def test_missing_toolkit(tmp_path):
    run = stages.Run({"compute capability": "9.0", "CUDA toolkit": None}, tmp_path)
    compilation = drivers.Compilation(run, limit=60, wanted=True)
    for function in (build_stage.build, lambda stage: drivers.drivers(stage, compilation)):
        outcome = stages.run_stage(stages.Stage(run, "stage", 60), function)
        assert outcome == ("not available", "there is no CUDA toolkit (nvcc and libcudart_static.a)")


def test_compiler_wrapper_can_be_replaced_while_it_runs(tmp_path):
    """A shell reads its script while running it, and a file that is open for writing cannot be executed."""
    wrap_compiler, file = compile_times.wrap_compiler, tmp_path / "some.steps"
    program = wrap_compiler("true", file)
    stop = threading.Event()

    def again():
        while not stop.is_set():
            wrap_compiler("true", file)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        for _ in range(20):
            subprocess.run([program, "-o", "a.o"], check=True)
    finally:
        stop.set()
        thread.join()
    assert len(file.read_text().splitlines()) == 20
    assert set(tmp_path.iterdir()) == {file, program}


def test_first_exception_stops_parallel_commands(stage):
    begun = []

    def waits():
        begun.append(stage.python("-c", "import time; time.sleep(60)"))

    def fails():
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        stages.run_parallel(stage, [fails, *[waits] * 9], 2)
    assert len(begun) < 3
    stage.stop()  # nothing is left to stop


class AllCompiled:
    def __init__(self, but=()):
        self._failures = {name: f"{name} does not compile" for name in but}

    def failures(self):
        return self._failures


@pytest.fixture
def sanitized(run, monkeypatch):
    """Returns the outcome with a stub of compute-sanitizer, which does not run the drivers.

    It reports something on commands that match $REPORTED, prints no summary for $SILENT and hangs on $HANGS.
    Its exit status imitates that of a driver whose kernel was ended.
    """
    tool = run.work / "compute-sanitizer"
    tool.write_text(
        '#!/bin/sh\necho "$*" >> "$0.calls"\ncase "$*" in $SILENT) echo "no memory"; exit 1;; esac\n'
        'case "$*" in $HANGS) exec sleep 60;; esac\ncase "$*" in $REPORTED) count=1;; *) count=0;; esac\n'
        'case $2 in racecheck) echo "RACECHECK SUMMARY: $count hazards displayed (0 errors, 0 warnings)";;\n'
        '*) echo "ERROR SUMMARY: $count errors";; esac\nexit $count\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{run.work}:{os.environ['PATH']}")
    for driver in drivers.FOLDER.glob("*.cu"):
        (run.work / f"driver_{driver.stem}").touch()

    def sanitized(limit=60, compilation=None):
        stage = stages.Stage(run, "sanitizer", limit)
        compilation = compilation or AllCompiled()
        return stages.run_stage(stage, lambda stage: sanitizer.sanitizer(stage, compilation))

    return sanitized


def test_planted_faults_that_no_tool_reports(sanitized, monkeypatch):
    monkeypatch.setenv("REPORTED", "*racecheck*planted_faults*barrier*")
    outcome = sanitized()
    faults = drivers.fault_cases()
    unseen = [name for name in faults if "barrier" not in name]
    assert len(faults) > 10
    assert outcome.state == "ok"
    assert f"{len(faults) - len(unseen)} of {len(faults)} planted faults reported" in outcome.detail
    assert outcome.detail.endswith(f"by no tool: {', '.join(unseen)}")


def test_report_on_a_driver_is_a_failure(sanitized, monkeypatch):
    monkeypatch.setenv("REPORTED", "*initcheck*driver_greedy")
    outcome = sanitized()
    assert outcome.state == "failed"
    assert outcome.detail.startswith("greedy under initcheck: reported; ")


def test_numerical_faults_are_not_for_the_tools():
    numerical = "add_squares with swapped operands"
    assert numerical not in [*drivers.fault_cases(), *drivers.fault_free_cases()]
    assert "add_squares" in drivers.fault_free_cases()
    source = (drivers.FOLDER / f"{drivers.FAULTS}.cu").read_text()
    assert numerical in source
    assert source.count('      {"') == len(drivers.fault_free_cases()) + len(drivers.fault_cases()) + 1


def test_missing_summary_does_not_hide_other_verdicts(sanitized, monkeypatch):
    monkeypatch.setenv("SILENT", "*memcheck*driver_greedy")
    monkeypatch.setenv("REPORTED", "*initcheck*driver_align")
    outcome = sanitized()
    assert outcome.state == "failed"
    assert outcome.detail.startswith("align under initcheck: reported; greedy under memcheck: no summary; ")


def test_driver_that_was_not_compiled_is_a_failure(sanitized, run):
    (run.work / "driver_greedy").unlink()
    outcome = sanitized(compilation=AllCompiled(but=["greedy"]))
    assert outcome.state == "failed"
    assert outcome.detail.startswith("greedy does not compile; clean: align, ")


def test_slow_tools_are_unfinished(sanitized, run, monkeypatch):
    """All drivers run under memcheck first."""
    monkeypatch.setenv("HANGS", "*racecheck*")
    count = len(drivers.names())
    monkeypatch.setattr(sanitizer, "_WORKERS", 1)
    outcome = sanitized(limit=1)
    assert outcome.state == "unfinished"
    assert outcome.detail == (
        f"of {count} drivers, memcheck {count}, racecheck 0, initcheck 0, synccheck 0; "
        f"{len(drivers.fault_cases())} planted faults not done"
    )
    calls = (run.work / "compute-sanitizer.calls").read_text().splitlines()
    assert ["memcheck" in call for call in calls] == [True] * count + [False]

    monkeypatch.setenv("REPORTED", "*memcheck*driver_align")
    assert sanitized(limit=1).state == "failed"


def test_hanging_fault_does_not_make_the_stage_unfinished(sanitized, monkeypatch):
    monkeypatch.setattr(sanitizer, "_FAULT_SECONDS", 0.2)
    monkeypatch.setenv("HANGS", "*skips a barrier")
    outcome = sanitized()
    assert outcome.state == "ok"
    assert ", sum_rows with a warp that skips a barrier (hangs), " in outcome.detail


def test_compute_sanitizer_that_does_not_work(run, sanitized):
    (run.work / "compute-sanitizer").write_text("#!/bin/sh\necho 'Error: Device not supported'\nexit 1\n")
    assert sanitized() == (
        "not available",
        "compute-sanitizer does not work here: Error: Device not supported",
    )
