"""`make gpu` as far as it goes without a GPU: the command, its stages and the file of results."""

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from helpers.gpu_command import FOLDER, WIDE, gpu_command, loss_row, toolkit


@pytest.fixture
def modules(monkeypatch):
    """Those that need no torch, by their names."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("stages", "compile_times", "results", "drivers", "sanitizer", "suite")
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
        "make gpu VENV=0 PYTHON=python3 takes another Python, and "
        "make gpu REHEARSAL=1 tries all else"
    )


def test_unknown_stages():
    done = gpu_command("--only", "tests,benchmark")
    assert done.returncode == 2
    assert "--only knows build, tests, drivers, bench, sanitizer, and not benchmark" in done.stderr


@pytest.fixture
def main(modules):
    """The module of the command itself."""
    command = importlib.util.spec_from_file_location("gpu_main", FOLDER / "__main__.py")
    main = importlib.util.module_from_spec(command)
    command.loader.exec_module(main)
    return main


def test_the_whole_takes_less_than_nine_minutes(stages, main):
    limits = main.LIMITS
    # Compilers that are still at work when the tests are done are waited for.
    first = max(sum(limits[name] for name in main.BESIDE_COMPILERS), main.COMPILE_SECONDS)
    rest = sum(seconds for name, seconds in limits.items() if name not in main.BESIDE_COMPILERS)
    graces = (len(limits) + 1) * stages.GRACE_SECONDS
    assert main.MACHINE_SECONDS + first + rest + graces < 540


MACHINE = {"device": "A GPU", "torch": "2.11", "sources": "01"}


def test_a_whole_run_has_a_file_of_its_own_and_a_part_resumes_the_last(modules, tmp_path):
    def opened(machine=MACHINE, today="2026-01-02", resumes=False):
        results = modules["results"].Results.of(tmp_path, machine, today, False, resumes)
        results.write()
        return results.file.name

    assert opened(resumes=True) == "a-gpu-2026-01-02.json"
    assert opened() == "a-gpu-2026-01-02-2.json"
    assert opened(resumes=True) == "a-gpu-2026-01-02-2.json"
    assert opened({**MACHINE, "torch": "2.13"}, resumes=True) == "a-gpu-2026-01-02-3.json"
    assert opened({**MACHINE, "sources": "02"}, resumes=True) == "a-gpu-2026-01-02-4.json"
    assert opened(resumes=True) == "a-gpu-2026-01-02-2.json"
    assert opened(today="2026-01-03", resumes=True) == "a-gpu-2026-01-03.json"


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


def test_a_limit_below_what_compilers_need_is_a_problem(modules):
    """A build in 80 s, of which one file takes 112, and drivers in 60 s."""
    limit_problem = modules["compile_times"].limit_problem
    assert limit_problem(80, [112.0, 30.0, 20.0]) == (
        "the limit of 80 s is too short: 3 compiler steps of 162 CPU s, "
        "the longest 112 s, need 140 s on 16 cores"
    )
    assert limit_problem(60, [149.0, 9.0])
    assert limit_problem(60, [10.0] * 80)  # all cores together take longer than the limit
    assert limit_problem(60, [10.0] * 16, beside=700.0)
    assert limit_problem(60, [10.0] * 16, beside=500.0) is None
    assert limit_problem(150, [112.0, 30.0, 20.0]) is None
    assert limit_problem(1, []) is None


def test_compiler_steps_are_noted(modules, tmp_path):
    file = tmp_path / "some.steps"
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\ni=0; while [ $i -lt 100000 ]; do i=$((i+1)); done\nexit ${1%.x}\n")
    compiler.chmod(0o755)
    noted = modules["compile_times"].noted(str(compiler), file)
    assert subprocess.run([noted, "0.x", "-o", "a.o"], check=False).returncode == 0
    assert subprocess.run([noted, "0.x", "-o", "b.o"], check=False).returncode == 0
    assert subprocess.run([noted, "3.x", "-o", "c.o"], check=False).returncode == 3
    assert subprocess.run([noted, "0.x"], check=False).returncode == 0
    steps = modules["compile_times"].steps(file)
    assert list(steps) == ["a.o", "b.o"]
    assert all(seconds > 0.005 for seconds in steps.values())


def test_a_stage_that_hangs_costs_its_own_time_only(stages, run):
    hanging = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); time.sleep(60)"
    stage = stages.Stage(run, "hangs", 0.3)
    outcome = stages.run_stage(stage, lambda stage: stage.python("-c", hanging))
    assert outcome.state == "failed"
    assert "stopped after its time" in outcome.detail
    outcome = stages.run_stage(
        stages.Stage(run, "next", 30),
        lambda stage: stages.Outcome("ok", stage.python("-c", "print(7)").output),
    )
    assert outcome == ("ok", "7\n")
    assert "print(7)" in (run.work / "next.log").read_text()


def test_a_stage_that_raises(stages, stage):
    def missing(stage):
        raise stages.NotAvailableError("no tool")

    assert stages.run_stage(stage, missing) == ("not available", "no tool")
    assert stages.run_stage(stage, lambda stage: 1 / 0) == ("failed", "ZeroDivisionError: division by zero")


def test_output_is_kept_while_a_command_runs(stages, run, monkeypatch):
    monkeypatch.setattr(stages, "_PROGRESS_SECONDS", 0.05)
    seen = []

    def meanwhile():
        seen.extend(file.read_text() for file in run.work.glob("stage-*.part"))
        return "so far"

    reported = []
    stage = stages.Stage(run, "stage", 60, on_progress=lambda stage, detail: reported.append(detail))
    script = "import time; print('begun'); time.sleep(0.8)"
    assert stage.python("-c", script, meanwhile=meanwhile).output == "begun\n"
    assert "begun\n" in seen
    assert reported[0] == "so far"
    assert not list(run.work.glob("*.part"))


def test_nothing_is_measured_beside_compilers(main, run, monkeypatch):
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
def test_a_run_on_a_gpu_fails_without_what_it_needs(main, stages, tmp_path, rehearsal):
    run = stages.Run({"compute capability": "9.0"}, tmp_path, rehearsal)
    failing = {stage for stage in main.LIMITS if main.is_failure(stage, "not available", run)}
    assert failing == (set() if rehearsal else {"build", "tests", "drivers"})
    assert all(main.is_failure(stage, "failed", run) for stage in main.LIMITS)
    assert not any(
        main.is_failure(stage, state, run) for stage in main.LIMITS for state in ("ok", "unfinished")
    )


def test_a_description_does_not_wait_for_a_program_that_hangs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER.parent)
    monkeypatch.syspath_prepend(FOLDER)
    machine = importlib.import_module("machine")
    monkeypatch.setattr(machine, "_SECONDS", 0.1)
    assert machine.output_of("sleep", "60") == "unknown"
    assert machine.output_of("echo", "580.1") == "580.1"
    assert machine.output_of("no-such-program") == "not installed"


def test_a_description_names_the_sources_and_the_toolkit(monkeypatch, tmp_path):
    """The toolkit that setup.py takes, although another nvcc is first on PATH."""
    monkeypatch.syspath_prepend(FOLDER.parent)
    monkeypatch.syspath_prepend(FOLDER)
    machine = importlib.import_module("machine")
    monkeypatch.setenv("CUDA_HOME", toolkit(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{toolkit(tmp_path / 'other')}/bin:{os.environ['PATH']}")
    assert machine.describe()["CUDA toolkit"] == str(tmp_path / "home")

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


def test_both_compilations_use_the_same_nvcc(modules, stages, tmp_path):
    """The build, and the drivers, note the steps of the one in the toolkit."""
    home = toolkit(tmp_path / "toolkit")
    run = stages.Run({"compute capability": "9.0", "CUDA toolkit": home}, tmp_path)
    run_python = {}

    class Build(stages.Stage):
        def python(self, *arguments, **environment):
            run_python.update(environment)
            return stages.Result(0, "")

    modules["suite"].build(Build(run, "build", 60))
    modules["drivers"].Compilation(run, limit=60, wanted=True).wait()
    for wrapper in (run.work / "drivers-nvcc", Path(run_python["PYTORCH_NVCC"])):
        assert f"{home}/bin/nvcc " in wrapper.read_text()


def test_a_driver_that_was_not_made_is_a_failure(modules, stages, tmp_path):
    """nvcc says that all is well."""
    machine = {"compute capability": "9.0", "CUDA toolkit": toolkit(tmp_path / "toolkit")}
    run = stages.Run(machine, tmp_path)
    drivers = modules["drivers"]
    compilation = drivers.Compilation(run, limit=60, wanted=True)
    names = drivers.names()
    assert len(names) > 5
    reasons = [f"{name} does not compile: nvcc made nothing" for name in names]
    assert drivers.drivers(stages.Stage(run, "drivers", 60), compilation) == ("failed", "; ".join(reasons))
    nothing = drivers.Compilation(run, limit=60, wanted=False)
    assert nothing.failures() == {name: f"{name} was not compiled" for name in names}


def test_no_compiler_is_not_available(modules, stages, tmp_path):
    run = stages.Run({"compute capability": "9.0", "CUDA toolkit": None}, tmp_path)
    compilation = modules["drivers"].Compilation(run, limit=60, wanted=True)
    for function in (modules["suite"].build, lambda stage: modules["drivers"].drivers(stage, compilation)):
        outcome = stages.run_stage(stages.Stage(run, "stage", 60), function)
        assert outcome == ("not available", "there is no CUDA toolkit (nvcc and libcudart_static.a)")


def test_a_compiler_can_be_noted_while_it_runs(modules, tmp_path):
    """A shell reads its script as it goes, and a file that is open for writing cannot be run."""
    noted, file = modules["compile_times"].noted, tmp_path / "some.steps"
    program = noted("true", file)
    stop = threading.Event()

    def again():
        while not stop.is_set():
            noted("true", file)

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


def test_the_first_exception_ends_all_that_runs_side_by_side(stages, stage):
    begun = []

    def waits():
        begun.append(stage.python("-c", "import time; time.sleep(60)"))

    def fails():
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        stages.run_parallel(stage, [fails, *[waits] * 9], 2)
    assert len(begun) < 3
    stage.stop()  # nothing is left to end


class AllCompiled:
    def __init__(self, but=()):
        self._failures = {name: f"{name} does not compile" for name in but}

    def failures(self):
        return self._failures


@pytest.fixture
def sanitized(modules, stages, run, monkeypatch):
    """The outcome with a compute-sanitizer that reports what $REPORTED says, and drivers that are never run.

    It has no summary of what $SILENT says, and hangs on what $HANGS says. As the real one: the exit status is
    that of the driver, which fails where its kernel was ended.
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
    for driver in modules["drivers"].FOLDER.glob("*.cu"):
        (run.work / f"driver_{driver.stem}").touch()

    def sanitized(limit=60, compilation=None):
        stage = stages.Stage(run, "sanitizer", limit)
        compilation = compilation or AllCompiled()
        return stages.run_stage(stage, lambda stage: modules["sanitizer"].sanitizer(stage, compilation))

    return sanitized


def test_planted_faults_that_no_tool_reports_are_named(modules, sanitized, monkeypatch):
    monkeypatch.setenv("REPORTED", "*racecheck*planted_faults*barrier*")
    outcome = sanitized()
    faults = modules["drivers"].fault_cases()
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


def test_faults_of_arithmetic_are_not_for_the_tools(modules):
    drivers = modules["drivers"]
    numerical = "add_squares with swapped operands"
    assert numerical not in [*drivers.fault_cases(), *drivers.fault_free_cases()]
    assert "add_squares" in drivers.fault_free_cases()
    source = (drivers.FOLDER / f"{drivers.FAULTS}.cu").read_text()
    assert numerical in source
    assert source.count('      {"') == len(drivers.fault_free_cases()) + len(drivers.fault_cases()) + 1


def test_a_tool_without_a_summary_hides_no_other_verdict(sanitized, monkeypatch):
    monkeypatch.setenv("SILENT", "*memcheck*driver_greedy")
    monkeypatch.setenv("REPORTED", "*initcheck*driver_align")
    outcome = sanitized()
    assert outcome.state == "failed"
    assert outcome.detail.startswith("align under initcheck: reported; greedy under memcheck: no summary; ")


def test_a_driver_that_was_not_compiled_is_missing_under_the_tools(sanitized, run):
    (run.work / "driver_greedy").unlink()
    outcome = sanitized(compilation=AllCompiled(but=["greedy"]))
    assert outcome.state == "failed"
    assert outcome.detail.startswith("greedy does not compile; clean: align, ")


def test_slow_tools_are_unfinished_and_not_failed(modules, sanitized, run, monkeypatch):
    """memcheck is the first, over all drivers."""
    monkeypatch.setenv("HANGS", "*racecheck*")
    count = len(modules["drivers"].names())
    monkeypatch.setattr(modules["sanitizer"], "_SIDE_BY_SIDE", 1)
    outcome = sanitized(limit=1)
    assert outcome.state == "unfinished"
    assert outcome.detail == (
        f"of {count} drivers, memcheck {count}, racecheck 0, initcheck 0, synccheck 0; "
        f"{len(modules['drivers'].fault_cases())} planted faults not done"
    )
    calls = (run.work / "compute-sanitizer.calls").read_text().splitlines()
    assert ["memcheck" in call for call in calls] == [True] * count + [False]

    monkeypatch.setenv("REPORTED", "*memcheck*driver_align")
    assert sanitized(limit=1).state == "failed"


def test_a_fault_that_hangs_is_no_lack_of_time(modules, sanitized, monkeypatch):
    monkeypatch.setattr(modules["sanitizer"], "_FAULT_SECONDS", 0.2)
    monkeypatch.setenv("HANGS", "*skips a barrier")
    outcome = sanitized()
    assert outcome.state == "ok"
    assert ", sum_rows with a warp that skips a barrier (hangs), " in outcome.detail


def test_a_compute_sanitizer_that_does_not_work_here(run, sanitized):
    (run.work / "compute-sanitizer").write_text("#!/bin/sh\necho 'Error: Device not supported'\nexit 1\n")
    assert sanitized() == (
        "not available",
        "compute-sanitizer does not work here: Error: Device not supported",
    )
