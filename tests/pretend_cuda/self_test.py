"""The pretend device rejects what a GPU rejects and computes what a GPU computes.

Run `python -m pytest -p pretend_cuda.plugin pretend_cuda/self_test.py` in tests/.
"""

import os

import pytest
import torch
from reference.ctc import no_synchronization
from torch import nn

# The fixture hides the GPU from tests of other devices.
pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.parametrize("device", ["cuda"], indirect=True),
]

CUDA = torch.device("cuda", 0)


@pytest.fixture
def numbers():
    return torch.arange(6.0, device=CUDA).view(2, 3)


@pytest.fixture
def graph():
    return torch.cuda.CUDAGraph()


MIXED = {
    "addition": lambda x, y: x + y,
    "the other way around": lambda x, y: y + x,
    "in place": lambda x, y: y.add_(x),
    "product": lambda x, y: x @ y.T,
    "cat": lambda x, y: torch.cat([x, y]),
    "stack": lambda x, y: torch.stack([x, y]),
    "where": lambda x, y: torch.where(x > 1, x, y),
    "out": lambda x, y: torch.exp(x, out=y),
    "linear": lambda x, y: nn.functional.linear(x, y),
    "indexed by": lambda x, y: y[x[0, :2].long()],
    "values put": lambda x, y: x.index_put_((torch.tensor([0], device=CUDA),), y[0]),
    "gather": lambda x, y: x.gather(1, y.long().clamp(max=2)),
    "scalar into cat": lambda x, y: torch.cat([x[0], y[0, :1].sum()[None]]),
    "batch_norm": lambda x, y: nn.functional.batch_norm(x, y[0], y[1], training=True),
    "lstm": lambda x, y: nn.LSTM(3, 2)(x),
    "lstm's state": lambda x, y: nn.LSTM(3, 2, device=CUDA)(x, (torch.zeros(1, 2), torch.zeros(1, 2))),
    "backward": lambda x, y: x.clone().requires_grad_().exp().backward(y),
}


@pytest.mark.parametrize("call", MIXED.values(), ids=MIXED)
def test_mixed_devices(numbers, call):
    with pytest.raises(RuntimeError, match=r"device|expected torch.cuda.FloatTensor"):
        call(numbers, torch.ones(2, 3))


def test_cpu_scalars(numbers):
    assert (numbers + torch.tensor(1.0)).sum().item() == 21
    assert torch.where(numbers > 2, numbers, torch.tensor(0.0)).sum().item() == 12
    numbers[numbers > 2] = 0
    assert numbers.tolist() == [[0, 1, 2], [0, 0, 0]]


def test_numpy_cannot_access_device_memory(numbers):
    for call in (numbers.numpy, lambda: numbers.__array__()):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            call()


SYNCHRONIZING = {
    "item": lambda x: x[0, 0].item(),
    "tolist": lambda x: x.tolist(),
    "bool": lambda x: bool(x[0, 0] > 1),
    "float": lambda x: float(x[0, 0]),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "to the device": lambda x: torch.ones(2).to(CUDA),
    "tensor": lambda x: torch.tensor([1, 2], device=CUDA),
    "copy_": lambda x: x.copy_(torch.zeros(2, 3)),
    "nonzero": lambda x: x.nonzero(),
    "equal": lambda x: torch.equal(x, x + 1),
    "mask": lambda x: x[x > 1],
    "put under a mask": lambda x: x.index_put_((x > 1,), torch.zeros(1, device=CUDA)),
    "masked_select": lambda x: x.masked_select(x > 1),
    "indices of the CPU": lambda x: x[torch.tensor([0, 1])],
    "unique": lambda x: x.unique(),
    "bincount": lambda x: x.flatten().long().bincount(),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.tensor([1, 2], device=CUDA), 0),
    "repr": lambda x: repr(x),
}


def assert_capture_rejects(graph, call, message):
    with torch.cuda.graph(graph), pytest.raises(RuntimeError, match=message):
        call()


@pytest.mark.parametrize("call", SYNCHRONIZING.values(), ids=SYNCHRONIZING)
def test_synchronizing_operations(numbers, graph, call):
    call(numbers)
    with no_synchronization(CUDA), pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        call(numbers)
    call(numbers)
    message = "operation not permitted when stream is capturing|Cannot copy between CPU and CUDA tensors"
    with pytest.raises(RuntimeError, match="operation failed due to a previous error during capture"):
        assert_capture_rejects(graph, lambda: call(numbers), message)
    with pytest.raises(RuntimeError, match="without a preceding successful capture"):
        graph.replay()


def test_copies_between_devices(numbers):
    there = torch.zeros(2, 3)
    assert there.copy_(numbers) is there
    assert there.tolist() == numbers.tolist()
    assert torch.ops.aten.copy_(there, numbers).device.type == "cpu"
    assert numbers.copy_(torch.zeros(2, 3)).device == CUDA


def test_operations_that_do_not_synchronize(numbers):
    pinned = torch.ones(2, 3).pin_memory()
    with no_synchronization(CUDA):
        numbers.copy_(pinned, non_blocking=True)
        there = numbers.to("cpu", non_blocking=True)
        numbers[numbers > 1] = 0
        numbers.repeat_interleave(numbers[0].long(), 1, output_size=3)
    assert there.is_pinned()
    assert numbers.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_synchronize_during_capture(graph):
    for call in (
        torch.cuda.synchronize,
        torch.cuda.Event().synchronize,
        torch.cuda.current_stream().synchronize,
    ):
        with pytest.raises(RuntimeError, match="operation failed due to a previous error during capture"):
            assert_capture_rejects(graph, call, "operation not permitted when stream is capturing")


def test_graph_replay(numbers, graph):
    total = torch.zeros((), device=CUDA)
    with torch.cuda.graph(graph):
        rows = numbers[1]
        squares = (rows + torch.tensor(1.0)).square()
        total += squares.sum()
    assert squares.isnan().all()  # a capture does not compute
    total.zero_()
    for value in (1.0, 2.0):
        numbers.fill_(value)
        graph.replay()
        assert squares.tolist() == [(value + 1) ** 2] * 3
    assert total.item() == 12 + 27


def test_graph_replay_with_pinned_memory(graph):
    source, there = torch.ones(3).pin_memory(), torch.zeros(3).pin_memory()
    with torch.cuda.graph(graph):
        there.copy_(source.to(CUDA, non_blocking=True) + 1, non_blocking=True)
    source.fill_(5)
    graph.replay()
    assert there.tolist() == [6, 6, 6]


def test_new_memory_is_filled_with_garbage():
    assert torch.empty(5, device=CUDA).isnan().all()
    assert torch.empty(5, device=CUDA, dtype=torch.int64).tolist() == [-1] * 5


def test_views_and_autograd():
    base = torch.zeros(2, 3, device=CUDA, requires_grad=True)
    x = base * 1
    x[0].add_(2)
    x.view(3, 2)[2, 1] = 5
    assert x.tolist() == [[2, 2, 2], [0, 0, 5]]
    x.square().sum().backward()
    assert base.grad.tolist() == [[4, 4, 4], [0, 0, 0]]
    assert x[0].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_operators_that_resize_their_results():
    out = torch.empty(0, device=CUDA)
    torch.arange(4.0, out=out)
    assert out.tolist() == [0, 1, 2, 3]
    assert out.resize_(2, 2).tolist() == [[0, 1], [2, 3]]
    assert out.t_().tolist() == [[0, 2], [1, 3]]


def test_lstm_matches_cpu():
    network = nn.LSTM(3, 4, bidirectional=True)
    there = nn.LSTM(3, 4, bidirectional=True).to(CUDA)
    there.load_state_dict(network.state_dict())
    frames = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    for module, x in ((network, frames), (there, frames.to(CUDA))):
        output, (_, cell) = module(x)
        (output.sum() + cell.square().sum()).backward()
    for ours, theirs in zip(there.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad)


def test_autocast_dtypes():
    x = torch.ones(5, 2, 3, device=CUDA)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert nn.Linear(3, 4, device=CUDA)(x).dtype == torch.bfloat16
        assert nn.LSTM(3, 4, device=CUDA)(x)[0].dtype == torch.float16


def test_batch_norm_backward_without_saved_mean():
    def backward(*shape):
        maps, channel = torch.ones(shape, device=CUDA), torch.ones(shape[1], device=CUDA)
        constants = (channel, channel, channel, None, None, False, 1e-5, [True, True, True])
        return torch.ops.aten.native_batch_norm_backward(maps, maps, *constants)

    backward(2, 3, 4, 5)
    with pytest.raises(RuntimeError, match="save_mean should always be defined"):
        backward(2, 3, 1, 1)


def test_cuda_generator():
    def drawn(seed):
        return torch.randn(3, device=CUDA, generator=torch.Generator(CUDA).manual_seed(seed)).tolist()

    assert drawn(0) == drawn(0) != drawn(1)


def test_forked_process():
    child = os.fork()
    if child == 0:
        try:
            torch.empty(1, device=CUDA)
        except RuntimeError as error:
            os._exit(42 if "Cannot re-initialize CUDA in forked subprocess" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_device_count():
    assert torch.cuda.device_count() == 1
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.empty(1, device="cuda:1")
