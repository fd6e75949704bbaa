"""Collectives of processes started by torchrun, and of a single process."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("PIL")

from crnn_ext.cli import main
from crnn_ext.ocr.system.distributed import ProcessGroup, gpu_for_local_rank

PROGRAM = """
import glob, json, sys
import torch
from crnn_ext.ocr.system.distributed import ProcessGroup
group = ProcessGroup.initialize()
# DistributedDataParallel holds on to the group in cycles, and lets torch import what holds on to it too.
network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
network(torch.zeros(1, 2)).sum().backward()
network.itself = network
del network
ProcessGroup.initialize().destroy()  # the group existed before, so it stays
results = {
    "share": list(group.shard(range(5))),
    "sums": group.all_reduce_sum([group.rank + 1, 0.5]),
    "gather": group.all_gather({"rank": group.rank}),
    "first": group.broadcast_from_rank0(lambda: group.rank),
}
averaged = torch.tensor([1.0 + group.rank])
group.all_reduce_mean_([averaged])
results["average"] = averaged.item()
try:
    group.broadcast_from_rank0(lambda: [][group.rank])
except IndexError as error:
    results["error"] = str(error)
group.destroy()
results["threads"] = sum("gloo" in open(name).read() for name in glob.glob("/proc/self/task/*/comm"))
with open(f"{sys.argv[1]}/{group.rank}.json", "w") as file:
    json.dump(results, file)
"""


def test_single_process_group():
    group = ProcessGroup.initialize()
    assert group == ProcessGroup(0, 1, 0)
    assert group.shard(range(3)) == range(3)
    assert group.all_reduce_sum([1, 2.5]) == [1, 2.5]
    assert group.all_gather("part") == ["part"]
    assert group.broadcast_from_rank0(lambda: 3) == 3
    group.destroy()


@pytest.mark.parametrize(
    ("uuids", "gpus", "backend"),
    [
        (["", ""], 0, "gloo"),
        (["a", ""], 0, "gloo"),
        (["a", "a"], 1, "gloo"),
        (["a", "b", "a"], 2, "gloo"),
        (["a", "b"], 2, "cpu:gloo,cuda:nccl"),
    ],
)
def test_backend_depends_on_gpu_sharing(uuids, gpus, backend, monkeypatch):
    """All processes choose the same backend, even if each sees only its own GPU."""
    world_size, joined = len(uuids), []
    monkeypatch.setattr("torch.cuda.is_available", lambda: uuids[1] != "")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(uuid=uuids[1]))
    store = torch.distributed.HashStore()
    for rank, uuid in enumerate(uuids):
        if rank != 1:
            store.set(f"gpu of {rank}", uuid)
    monkeypatch.setattr("torch.distributed.rendezvous", lambda url: iter([(store, 1, world_size)]))
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *names, **_: joined.extend(names))
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: world_size)
    settings = {"RANK": 1, "WORLD_SIZE": world_size, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": world_size}
    for name, value in {**settings, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert ProcessGroup.initialize() == ProcessGroup(1, world_size, 1, owns_group=True, num_gpus=gpus)
    assert joined == [backend]


def test_own_gpu_without_gpus():
    with pytest.raises(ValueError, match="the device must be cpu, got cuda: torch finds no CUDA GPU"):
        gpu_for_local_rank(0)


def by_torchrun(program, folder):
    command = [*["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], program, folder]
    subprocess.run([sys.executable, *command], check=True)


def by_hand(program, folder):
    """Start the processes like other launchers, by environment variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, program, folder],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]


@pytest.mark.parametrize("start", [by_torchrun, pytest.param(by_hand, marks=pytest.mark.exhaustive)])
def test_two_processes_collectives(tmp_path, start):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    start(program, tmp_path)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [part["share"] for part in results] == [[0, 2, 4], [1, 3]]
    for part in results:
        assert part["sums"] == [3, 1]
        assert part["gather"] == [{"rank": 0}, {"rank": 1}]
        assert part["first"] == 0
        assert part["average"] == 1.5
        assert part["error"] == "list index out of range"
        assert part["threads"] == 0


def test_join_incomplete_environment(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="LOCAL_RANK must be set if WORLD_SIZE is 2"):
        ProcessGroup.initialize()
    assert main(["read", "model", "image"]) == 2
    assert capsys.readouterr().err == "crnn-ext: LOCAL_RANK must be set if WORLD_SIZE is 2\n"
