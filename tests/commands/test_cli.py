"""The command `crnn-ext`: usage, devices, warnings and exit status as a process."""

import importlib.metadata
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from helpers.command_line import MAIN, run_without, without_throughput
from helpers.dataset_files import write_labels_dataset
from helpers.random_checkpoint import random_checkpoint

import crnn_ext
from crnn_ext.cli import main
from crnn_ext.commands import device
from crnn_ext.commands.messages import one_line_warnings
from crnn_ext.ocr import save_checkpoint
from crnn_ext.ocr.system.distributed import ProcessGroup


def test_device_option_errors(checkpoint, images, monkeypatch, capsys):
    for name, message in [
        ("gpu", "--device must be cpu, cuda or cuda:N, got 'gpu'"),
        ("meta", "--device must be cpu, cuda or cuda:N, got 'meta'"),
        ("cuda:1", "--device cuda:1: torch finds no CUDA GPU"),
    ]:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert main(["read", checkpoint, images[0], "--device", name]) == 2
        assert capsys.readouterr() == ("", f"crnn-ext: {message}\n")
    assert main(["read", checkpoint, images[0], "--device", "cpu"]) == 0


def test_export_rejects_old_torch(checkpoint, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.12.1+cu130"))
    assert main(["export", checkpoint, "-o", str(tmp_path / "model.pt2")]) == 2
    expected = "export with a dynamic width needs torch 2.13 or later, got 2.12.1+cu130\n"
    assert capsys.readouterr().err.endswith(expected)
    assert not (tmp_path / "model.pt2").exists()


def test_device_choice(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("crnn_ext._load.library_path", lambda name: None)
    assert device.select(None) == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cuda: crnn_ext was built without CUDA"):
        device.select("cuda")
    monkeypatch.setattr("crnn_ext._load.library_path", Path)
    assert device.select(None) == torch.device("cuda:0")
    second = ProcessGroup(rank=1, world_size=2, local_rank=1, num_gpus=2)
    assert device.select("cuda", second) == torch.device("cuda:1")
    assert device.select("cuda:0", second) == torch.device("cuda:0")
    assert device.select("cpu", second) == torch.device("cpu")
    with pytest.raises(ValueError, match=r"--device cuda:2: the index must be in \[0, 2\), got 2"):
        device.select("cuda:2")


@pytest.fixture(scope="module")
def subprocess_device_count():
    script = "import torch; print(torch.cuda.device_count())"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout


def test_gpus_hidden_from_cpu_tests(subprocess_device_count):
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()
    assert torch.cuda.device_count() == 0
    assert subprocess_device_count == b"0\n"


def test_device_choice_processes_share_gpus(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("crnn_ext._load.library_path", Path)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    for gpus, indices, message in (
        (1, [0, 0, 0], "crnn-ext: 3 processes share 1 GPU\n"),
        (2, [0, 1, 0], "crnn-ext: 3 processes share 2 GPUs\n"),
        (3, [0, 1, 2], ""),
    ):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        for name in (None, "cuda"):
            chosen = [device.select(name, ProcessGroup(rank, 3, rank, True, gpus)) for rank in range(3)]
            assert chosen == [torch.device("cuda", index) for index in indices]
            assert capsys.readouterr().err == message
    with pytest.raises(ValueError, match="--device must be cpu or cuda with several processes"):
        device.select("cuda:0")
    assert device.select("cpu", ProcessGroup(1, 3, 1, True, 3)) == torch.device("cpu")
    assert capsys.readouterr().err == ""


def test_foreign_warnings_use_default_display(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("warnings.showwarning", lambda *arguments: shown.append(arguments))
    with one_line_warnings():
        warnings.warn("not ours", UserWarning, stacklevel=1)
    assert [(str(message), category) for message, category, *_ in shown] == [("not ours", UserWarning)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        *(["read"], ["read", "model"], ["write"], ["read", "--fast", "a", "b"]),
        ["read", "--js", "a", "b"],  # abbreviations are not accepted
        ["read", "a", "b", "--lm-w", "2"],
        ["--he"],
    ],
)
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: crnn-ext" in capsys.readouterr().err


def test_no_command_prints_help(capsys):
    assert main([]) == 2
    assert "read the text in images" in capsys.readouterr().err


def test_help_option(capsys):
    for arguments in (["--help"], ["read", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    assert "CHECKPOINT IMAGE [IMAGE ...]" in capsys.readouterr().out


def test_version_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"crnn_ext {crnn_ext.__version__}\n"


def test_python_m_crnn_ext():
    result = subprocess.run([sys.executable, "-m", "crnn_ext", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith("usage: crnn-ext ")


@pytest.fixture(scope="module")
def command():
    """The command line of `crnn-ext`: the installed script if there is one."""
    try:
        scripts = importlib.metadata.distribution("crnn_ext").entry_points
    except importlib.metadata.PackageNotFoundError:  # built in place
        return [sys.executable, "-c", MAIN]
    assert [script.value for script in scripts if script.name == "crnn-ext"] == ["crnn_ext.cli:main"]
    return [Path(sys.executable).parent / "crnn-ext"]


def test_installed_script_ascii_output(command, checkpoint, images, readings, tmp_path):
    """The output encoding cannot represent the file name."""
    path = tmp_path / "\N{SNOWMAN}.png"
    path.write_bytes(Path(images[0]).read_bytes())
    result = subprocess.run(
        [*command, "read", checkpoint, path],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (result.returncode, without_throughput(result.stderr.decode())) == (0, "")
    assert result.stdout.decode().split("\t")[:2] == [f"{tmp_path}/\\u2603.png", readings[0].text]


@pytest.fixture(scope="module")
def commands(checkpoint, images):
    """Arguments of commands that print, by command name."""
    folder = Path(checkpoint).parent
    (folder / "labels.txt").write_text("".join(f"{Path(image).name}\tabc\n" for image in images))
    return {
        "read": ["read", checkpoint, *images],
        "evaluate": ["evaluate", checkpoint, str(folder)],
        "check": ["check", str(folder)],
        "info": ["info", checkpoint],
    }


def one_by_default(*names):
    """Each name is a process of its own; the first stands for all in a default run."""
    first, *others = names
    return pytest.mark.parametrize(
        "name", [first, *(pytest.param(name, marks=pytest.mark.exhaustive) for name in others)]
    )


@one_by_default("evaluate", "read", "check", "info")
def test_broken_pipe_is_silent(command, commands, name):
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        [*command, *commands[name]], env=buffered, stdout=write_end, stderr=subprocess.PIPE
    )
    os.close(write_end)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is not there")
@one_by_default("read", "evaluate", "info")
def test_full_output_device(command, commands, name):
    with open("/dev/full", "w") as full:
        result = subprocess.run([*command, *commands[name]], stdout=full, stderr=subprocess.PIPE)
    assert result.stderr == b"crnn-ext: standard output: No space left on device\n"
    assert result.returncode == 2


def test_runtime_errors_in_one_line(checkpoint, images, monkeypatch, capsys):
    def raises(error):
        def read(recognizer, images):
            raise error

        return read

    for error, message in [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "out of memory: CUDA out of memory."),
        (RuntimeError("DataLoader worker (pid 7) is killed\nby"), "DataLoader worker (pid 7) is killed"),
    ]:
        monkeypatch.setattr("crnn_ext.ocr.Recognizer.read", raises(error))
        assert main(["read", checkpoint, images[0]]) == 2
        assert capsys.readouterr() == ("", f"crnn-ext: {message}\n")
    monkeypatch.setattr("crnn_ext.ocr.Recognizer.read", raises(RuntimeError("a fault of this program")))
    with pytest.raises(RuntimeError, match="a fault of this program"):
        main(["read", checkpoint, images[0]])


@pytest.mark.parametrize("name", ["read", "evaluate"])
def test_non_finite_logits(commands, name, tmp_path, capsys):
    checkpoint = random_checkpoint()
    checkpoint.network.rnn[1].embedding.weight.data.fill_(3e38)
    checkpoint.network.rnn[1].embedding.bias.data.fill_(3e38)
    save_checkpoint(tmp_path / "model", checkpoint)
    assert main([name, str(tmp_path / "model"), *commands[name][2:]]) == 2
    assert "model: the network returned logits that are not finite" in capsys.readouterr().err


def test_read_without_ocr_extra():
    """Without the ocr extra the package imports, and the command names the extra."""
    hidden = ["PIL", "safetensors", "tqdm", "matplotlib"]
    result = run_without(hidden, f"import crnn_ext; {MAIN}", "read", "model", "image")
    assert result.stderr == (
        "crnn-ext: crnn_ext.ocr needs PIL, which is not installed: install crnn_ext with its extra [ocr]\n"
    )
    assert (result.returncode, result.stdout) == (2, "")


def test_read_without_other_commands_packages(checkpoint, images):
    hidden = ["lmdb", "rapidfuzz", "cv2", "tensorboard"]
    result = run_without(hidden, MAIN, "read", checkpoint, images[0])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_error_rates_without_rapidfuzz(command, checkpoint, tmp_path, monkeypatch, capsys):
    """Both commands fail before reading an image or training."""
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    (tmp_path / "data").mkdir()
    write_labels_dataset(tmp_path / "data", {"0.png": "a", "1.png": "b", "2.png": "a"})
    arguments = [checkpoint] if command == "evaluate" else ["-o", str(tmp_path / "run")]
    assert main([command, *arguments, str(tmp_path / "data")]) != 0
    message = "error rates need rapidfuzz, which is not installed: install crnn_ext with its extra [ocr]"
    assert capsys.readouterr().err == f"crnn-ext: {message}\n"
    assert not (tmp_path / "run").exists()
