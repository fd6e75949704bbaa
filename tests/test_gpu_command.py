"""`make gpu` as far as it goes without a GPU, and what it makes of results."""

import json
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
    import report
    import sanitizer
    import stages

    return {"report": report, "sanitizer": sanitizer, "stages": stages}


@pytest.fixture
def stages(modules):
    return modules["stages"]


@pytest.fixture
def run(stages, tmp_path):
    return stages.Run({"compute capability": "9.0"}, tmp_path, dry_run=False)


def test_dry_run_of_the_benchmarks(tmp_path):
    done = gpu_command("--dry-run", "--only", "benchmarks", "--work", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("none-*.json")
    results = json.loads(file.read_text())
    assert results["dry run"] is True
    assert [stage["state"] for stage in results["stages"]] == ["ok"]
    ours = [row for row in results["rows"] if row["contender"] == "crnn_ext"]
    assert {row["op"] for row in ours} == {
        "ctc_loss",
        "greedy_decode",
        "align",
        "beam_search",
        "log_probability",
        "one sample",
    }
    assert all(row["eager ms"] > 0 and row["graph ms"] > 0 for row in ours)
    assert all(row["correct"] for row in ours if row["op"] != "one sample")
    table = done.stdout[done.stdout.index("DRY RUN") :]
    assert {aim["state"] for aim in results["aims"]} == {"not judged"}
    titles = (
        "ctc_loss, forward",
        "greedy_decode",
        "beam_search",
        "align (T",
        "log_probability of",
        "best path",
        "Aims",
        "Stages",
    )
    for title in titles:
        assert title in table
    assert table.strip().splitlines()[-1].startswith("DRY RUN")


def test_no_gpu():
    done = gpu_command(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    torch_here = f"torch {torch.__version__} in {sys.executable}"
    reason = "is a build for the CPU" if torch.version.cuda is None else "sees no GPU"
    assert done.stderr.strip() == (
        f"make gpu needs a GPU that torch can use, and {torch_here} {reason}; make gpu DRY=1 tries all else"
    )


def test_modules_that_need_what_is_not_installed_are_left_out(tmp_path):
    (tmp_path / "test_here.py").write_text("def test_it(): pass")
    (tmp_path / "test_away.py").write_text("import a_package_that_is_not_there")
    (tmp_path / "test_wrong.py").write_text("import reference.not_there")
    environment = os.environ | {"PYTEST_PLUGINS": "left_out", "PYTHONPATH": str(FOLDER)}
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, "--continue-on-collection-errors"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "left out: test_away.py (a_package_that_is_not_there is not installed)" in done.stdout
    assert "1 passed, 1 skipped, 1 error" in done.stdout


def test_torchs_helpers_for_tests_work_without_expecttest():
    script = (
        "import sys; sys.modules['expecttest'] = None; import left_out, torch; "
        "torch.library.opcheck(torch.ops.aten.sin.default, (torch.ones(2),), test_utils='test_schema')"
    )
    environment = os.environ | {"PYTHONPATH": str(FOLDER)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_stage_that_hangs_costs_its_own_time_only(stages, run):
    hanging = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); time.sleep(60)"
    outcome = stages.perform(run, "hangs", lambda run: run.python("-c", hanging), limit=0.3)
    assert outcome.state == "failed"
    assert "stopped after its time" in outcome.detail
    outcome = stages.perform(
        run, "next", lambda run: stages.Outcome("ok", run.python("-c", "print(7)").output), limit=30
    )
    assert outcome == ("ok", "7\n")
    assert "print(7)" in (run.work / "next.log").read_text()


def test_a_stage_that_raises(stages, run):
    def missing(run):
        raise stages.NotAvailableError("no tool")

    assert stages.perform(run, "missing", missing, 1) == ("not available", "no tool")
    assert stages.perform(run, "broken", lambda run: 1 / 0, 1) == (
        "failed",
        "ZeroDivisionError: division by zero",
    )


@pytest.fixture
def sanitizer(modules, run, monkeypatch):
    """With a compute-sanitizer that reports what its name says, and drivers that are never run."""
    tool = run.work / "compute-sanitizer"
    tool.write_text(
        '#!/bin/sh\necho "ERROR SUMMARY: some"\ncase "$*" in $REPORTED) exit $4;; *) exit 0;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{run.work}:{os.environ['PATH']}")
    sanitizer = modules["sanitizer"]
    for driver in sanitizer.DRIVERS.glob("*.cu"):
        (run.work / f"driver_{driver.stem}").touch()
    return sanitizer


def test_planted_faults_that_no_tool_reports_are_named(stages, run, sanitizer, monkeypatch):
    monkeypatch.setenv("REPORTED", "*racecheck*planted_faults*barrier*")
    outcome = stages.perform(run, "sanitizer", sanitizer.sanitized, 60)
    faults = [name for name, faulty in sanitizer.fault_cases().items() if faulty]
    unseen = [name for name in faults if "barrier" not in name]
    assert len(faults) > 10
    assert outcome.state == "ok"
    assert f"{len(faults) - len(unseen)} of {len(faults)} planted faults reported" in outcome.detail
    assert outcome.detail.endswith(f"by no tool: {', '.join(unseen)}")


def test_a_report_on_a_sound_driver_is_a_failure(stages, run, sanitizer, monkeypatch):
    monkeypatch.setenv("REPORTED", "*initcheck*driver_greedy")
    outcome = stages.perform(run, "sanitizer", sanitizer.sanitized, 60)
    assert outcome.state == "failed"
    assert outcome.detail.startswith("greedy under initcheck: reported; ")


SMALL, WIDE = [160, 64, 97, 40], [183, 90, 10241, 29]


def loss_row(contender, shape=SMALL, **fields):
    return {"op": "ctc_loss", "shape": shape, "contender": contender, "dtype": "float32", **fields}


def of_ours(eager, graph, shape=SMALL, **fields):
    return loss_row("crnn_ext", shape, **{"eager ms": eager, "graph ms": graph}, **fields)


def of_peer(name, eager):
    return loss_row(name, **{"eager ms": eager})


def beam_rows(ours, theirs):
    """Fields of our row and of the peer's."""
    shape = [200, 1, 5000, 10]
    contenders = {"crnn_ext": ours, "cuda_ctc_decoder": theirs}
    return [
        {"op": "beam_search", "shape": shape, "contender": name, "dtype": "float32", **fields}
        for name, fields in contenders.items()
    ]


@pytest.mark.parametrize(
    ("rows", "what", "measured", "state"),
    [
        ([of_ours(0.5, 0.4), of_peer("torch", 6)], "torch / ctc_loss", "12 / 15", "met"),
        ([of_ours(1, 0.5), of_peer("torch", 6)], "torch / ctc_loss", "6 / 12", "met in a graph"),
        ([of_ours(1, 1), of_peer("torch", 6)], "torch / ctc_loss", "6 / 6", "missed"),
        ([loss_row("crnn_ext", note="no kernel")], "torch / ctc_loss", "-", "not measured"),
        ([of_ours(1, 1), of_peer("cuDNN", 3.5)], "cuDNN / ctc_loss", "3.5 / 3.5", "met"),
        ([of_ours(3, 2, WIDE, **{"floor ms": 1.5})], "ctc_loss / floor", "2 / 1.33", "met in a graph"),
        ([loss_row("crnn_ext", **{"recursion ns a frame": 61.0})], "recursion, ns a frame", "61", "missed"),
        ([loss_row("crnn_ext", **{"same bits": False})], "same bits every time", "no", "missed"),
        (
            beam_rows({"eager ms": 1, "graph ms": 0.5}, {"eager ms": 2}),
            "cuda_ctc_decoder / beam_search",
            "2 / 4",
            "met in a graph",
        ),
        (beam_rows({"log P": -20}, {"log P": -20.5}), "log P - that of cuda_ctc_decoder", "0.5", "met"),
        (beam_rows({"log P": -20}, {"log P": -19.5}), "log P - that of cuda_ctc_decoder", "-0.5", "missed"),
        (
            beam_rows({"log P": -20}, {"note": "not installed"}),
            "log P - that of cuda_ctc_decoder",
            "-",
            "not measured",
        ),
        (
            [of_ours(1, 0.5) | {"op": "align"}, of_peer("forced_align", 40) | {"op": "align"}],
            "forced_align / align",
            "40 / 80",
            "met in a graph",
        ),
    ],
)
def test_aims(modules, rows, what, measured, state):
    (aim,) = (aim for aim in modules["report"].aims(rows) if aim.what == what)
    assert (aim.measured, aim.state) == (measured, state)


def test_wrong_rows(modules):
    report = modules["report"]
    rows = [
        loss_row("crnn_ext", correct=True),
        loss_row("crnn_ext", WIDE, correct=False),
        loss_row("torch", note="out of memory"),
    ]
    assert report.wrong(rows) == [f"ctc_loss {tuple(WIDE)} float32: wrong"]
    assert "WRONG" in "\n".join(report.table(rows, list(report.aims(rows))))
