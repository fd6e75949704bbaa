"""`crnn-ext read` and `evaluate` give the same results in two processes as in one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.dataset_files import write_labels_dataset

from crnn_ext.cli import main
from crnn_ext.commands.output import ShardedFile
from crnn_ext.ocr.system.distributed import ProcessGroup

TORCHRUN = [sys.executable, *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")]


def run_in_two_processes(folder, *commands):
    """Run `crnn-ext` commands in two processes; return exit status, stdout and stderr of each process."""
    program = folder / "program.py"
    program.write_text(
        "import contextlib, io, json, os, sys\n"
        "import torch\n"
        "from crnn_ext.cli import main\n"
        "from crnn_ext.ocr.system.distributed import ProcessGroup\n"
        "group, leave, results = ProcessGroup.initialize(), ProcessGroup.destroy, []\n"
        "ProcessGroup.destroy = lambda group: None\n"
        f"for command in {list(commands)!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        with contextlib.redirect_stderr(io.StringIO()) as err:\n"
        "            status = main(command)\n"
        "    results.append((status, out.getvalue(), err.getvalue()))\n"
        "open(f'{sys.argv[1]}.{group.rank}', 'w').write(json.dumps(results))\n"
        "leave(group)\n"
    )
    subprocess.run([*TORCHRUN, program, program], check=True)
    first, second = (json.loads(Path(f"{program}.{rank}").read_text()) for rank in range(2))
    return list(zip(first, second, strict=True))


def test_read_and_evaluate_two_processes(checkpoint, tmp_path, capsys):
    lines = {f"{number:02}.png": "abc"[: number % 3 + 1] for number in range(7)}
    write_labels_dataset(tmp_path / "lines", lines)
    (tmp_path / "lines" / "03.png").write_text("text")
    images, out = str(tmp_path / "lines"), tmp_path / "out.tsv"
    read, evaluate = ["read", checkpoint, images], ["evaluate", checkpoint, images, "--json"]
    (reads, to_stdout, nothing, evaluations) = run_in_two_processes(
        tmp_path,
        [*read, "-o", str(out)],
        read,
        ["read", checkpoint, f"{tmp_path}/*.gif", "-o", f"{tmp_path}/none"],
        evaluate,
    )

    assert main(read) == 1
    alone = capsys.readouterr().out
    assert len(alone.splitlines()) == 6
    assert out.read_text() == alone
    assert not list(tmp_path.glob("*-of-*"))
    assert [(status, output) for status, output, _ in reads] == [(1, "")] * 2
    # The second process reads the images with odd numbers.
    assert "03.png" not in reads[0][2]
    assert "images/s, 6 images in" in reads[0][2]
    assert reads[1][2].startswith(f"crnn-ext: {images}/03.png: not an image")
    assert len(reads[1][2].splitlines()) == 1

    message = "crnn-ext: -o FILE is required with several processes\n"
    assert list(to_stdout) == [[2, "", message]] * 2
    assert [status for status, _, _ in nothing] == [2, 2]
    assert nothing[0][2].endswith("crnn-ext: no images to read\n")
    assert nothing[1][2] == ""

    assert main(evaluate) == 1
    output, errors = capsys.readouterr()
    (first_status, first_output, first_errors), second = evaluations
    assert (first_status, first_errors) == (1, errors)
    assert second == [1, "", ""]
    report, expected = json.loads(first_output), json.loads(output)
    del report["seconds"], expected["seconds"]
    assert expected["lines"] == 6
    # Confidences may differ in their last digits, since the batches differ.
    for found in (report, expected):
        found.update(calibration=None, worst=[line | {"confidence": None} for line in found["worst"]])
    assert report == expected


def test_shared_file_joins_in_order(tmp_path, monkeypatch):
    groups = [ProcessGroup(rank, 3, rank) for rank in range(3)]
    files = [ShardedFile(str(tmp_path / "out.json"), group) for group in groups]
    for index in (0, 1, 3, 4, 9):
        files[index % 3].write(index, f"line {index}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"out.{rank}-of-3.json" for rank in range(3)]
    monkeypatch.setattr(ProcessGroup, "all_gather", lambda group, part: [[0, 3, 9], [1, 4], []])
    monkeypatch.setattr(
        ProcessGroup, "broadcast_from_rank0", lambda group, make: make() if group.rank == 0 else None
    )
    for file in files[::-1]:
        file.merge()
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "line 0\nline 1\nline 3\nline 4\nline 9\n"


def test_shared_file_missing_part(tmp_path, monkeypatch):
    """Happens if machines do not share the folder. The old file and the own part stay."""
    (tmp_path / "out").write_text("before")
    file = ShardedFile(str(tmp_path / "out"), ProcessGroup(0, 2, 0))
    file.write(0, "line")
    monkeypatch.setattr(ProcessGroup, "all_gather", lambda group, part: [[0], [1]])
    monkeypatch.setattr(ProcessGroup, "broadcast_from_rank0", lambda group, make: make())
    with pytest.raises(FileNotFoundError) as caught:
        file.merge()
    assert caught.value.filename == str(tmp_path / "out.1-of-2")
    assert (tmp_path / "out").read_text() == "before"
    assert (tmp_path / "out.0-of-2").read_text() == "line\n"
