"""In which dtypes the networks compute under autocast."""

import itertools

import pytest
import torch
from helpers.networks import NETWORKS, small_network
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crnn_ext.models import CRNN
from crnn_ext.models.lstm import BidirectionalLSTM, _lstm_takes_bfloat16


class LSTMCalls(TorchFunctionMode):
    """What torch's LSTM is called with: the dtypes of its tensors, and whether autocast would cast them."""

    def __init__(self):
        super().__init__()
        self.dtypes, self.under_autocast, self.weights = [], [], []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is torch.lstm:
            tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
            self.dtypes.append({tensor.dtype for tensor in tensors})
            self.under_autocast.append(torch.is_autocast_enabled(tensors[0].device.type))
            self.weights.append(arguments[2])
        return function(*arguments, **(keywords or {}))


padded = pytest.mark.parametrize("padded", [False, True])


def read(padded, dtype):
    """A layer under autocast, what it makes of frames, and the calls of torch's LSTM that it takes."""
    torch.manual_seed(0)
    layer, calls = BidirectionalLSTM(16, 8, 5), LSTMCalls()
    frames = torch.randn(9, 3, 16)
    live = torch.ones(9, 3, 1) if padded else None
    expected = layer(frames, live)
    with torch.autocast("cpu", dtype), calls:
        found = layer(frames.to(dtype), None if live is None else live.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=2e-2)
    return calls


@padded
@pytest.mark.parametrize(("taken", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_lstms_compute_in_bfloat16_where_their_kernel_does_and_else_in_float32(
    padded, taken, dtype, monkeypatch
):
    """And outside of autocast, which on a GPU would take them to float16."""
    monkeypatch.setattr("crnn_ext.models.lstm._lstm_takes_bfloat16", lambda device: taken)
    calls = read(padded, torch.bfloat16)
    assert calls.dtypes == [{dtype}]
    assert calls.under_autocast == [False]


@padded
def test_under_float16_autocast_lstms_are_left_to_torch(padded):
    assert read(padded, torch.float16).under_autocast == [True]


@pytest.mark.parametrize(
    ("capability", "cudnn", "enabled", "taken"),
    [
        ((8, 0), 91300, True, True),
        ((12, 0), 92000, True, True),
        ((8, 0), 91002, True, False),
        ((7, 5), 91300, True, False),
        ((8, 0), None, True, False),
        ((8, 0), 91300, False, False),
    ],
)
def test_which_gpus_have_an_lstm_in_bfloat16(capability, cudnn, enabled, taken, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    with torch.backends.cudnn.flags(enabled=enabled):
        assert _lstm_takes_bfloat16(torch.device("cuda")) is taken
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda x: x + 1 if _lstm_takes_bfloat16(torch.device("cuda")) else x,
            backend="eager",
            fullgraph=True,
        )
        assert compiled(torch.zeros(())) == taken


@pytest.mark.parametrize("network", NETWORKS)
@padded
def test_both_lstms_of_a_network_compute_in_bfloat16_under_autocast(network, padded):
    model, calls = small_network(network).train(), LSTMCalls()
    with torch.autocast("cpu", torch.bfloat16), calls:
        logits = model(torch.randn(2, 1, 32, 40), [40, 21] if padded else None)
    assert calls.dtypes == [{torch.bfloat16}] * 2
    assert calls.under_autocast == [False] * 2
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


@padded
def test_float64_stays_float64_under_autocast(padded):
    model, images = small_network(CRNN).double(), torch.randn(2, 1, 32, 40, dtype=torch.float64)
    widths = [40, 21] if padded else None
    expected = model(images, widths)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(images, widths), expected)


def test_weights_of_the_lstm_lie_as_cudnn_wants_them():
    """All matrices, then all biases, in one buffer: what flatten_parameters() makes of nn.LSTM's on a GPU."""
    layer, live = BidirectionalLSTM(3, 4, 2), torch.ones(5, 2, 1)
    for inputs, options in ((11, {}), (11, {"dtype": torch.bfloat16}), (3, {"dtype": torch.bfloat16})):
        calls = LSTMCalls()
        frames = torch.randn(5, 2, 3).to(options.get("dtype", torch.float32))
        with calls:
            layer.rnn.run(frames, live if inputs == 11 else None, **options)
        [weights] = calls.weights
        assert [tuple(weight.shape) for weight in weights] == 2 * [(16, inputs), (16, 4), (16,), (16,)]
        end = 0
        for index in (0, 1, 4, 5, 2, 3, 6, 7):
            assert weights[index].storage_offset() == end
            assert weights[index].is_contiguous()
            end += weights[index].numel()
        assert weights[0].untyped_storage().nbytes() == weights[0].element_size() * end
        assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 1


@pytest.mark.parametrize("trace_lstm", [False, True])
def test_compile_under_autocast(trace_lstm):
    model, images, widths = small_network(CRNN), torch.randn(2, 1, 32, 12), torch.tensor([7, 12])
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=trace_lstm), torch.autocast("cpu", torch.bfloat16):
        compiled = torch.compile(model, backend="eager", fullgraph=trace_lstm)
        found, expected = compiled(images, widths), model(images, widths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


class Float16(TorchDispatchMode):
    """Which operators have a float16 tensor among their arguments or results."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        results = function(*arguments, **(keywords or {}))
        for leaf in itertools.chain(tree_leaves(arguments), tree_leaves(results)):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float16:
                self.operators.append(str(function))
        return results


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
@pytest.mark.parametrize("network", NETWORKS)
@padded
def test_bfloat16_autocast_hands_no_kernel_float16(device, network, padded):
    model, found = small_network(network).train().to(device), Float16()
    images = torch.randn(2, 1, 32, 40, device=device)
    with torch.autocast(device.type, torch.bfloat16), found:
        logits = model(images, torch.tensor([40, 21]) if padded else None)
    assert found.operators == []
    logits.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
def test_float16_autocast_hands_kernels_float16(device):
    """What the test above looks for is seen."""
    model, found = small_network(CRNN).train().to(device), Float16()
    with torch.autocast(device.type, torch.float16), found:
        model(torch.randn(2, 1, 32, 40, device=device))
    assert found.operators
