"""The dtypes in which the networks compute under autocast."""

import itertools

import pytest
import torch
from helpers.networks import NETWORKS, small_network
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crnn_ext.models import CRNN
from crnn_ext.models.lstm import BidirectionalLSTM, _lstm_takes_bfloat16


class RecordLSTMCalls(TorchFunctionMode):
    """Records calls of torch's LSTM: the dtypes of its tensors, whether autocast is on, its weights."""

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


def lstm_calls(padded, dtype):
    """The calls of torch's LSTM by a layer under autocast, whose output is checked."""
    torch.manual_seed(0)
    layer, calls = BidirectionalLSTM(16, 8, 5), RecordLSTMCalls()
    frames = torch.randn(9, 3, 16)
    valid = torch.ones(9, 3, 1) if padded else None
    expected = layer(frames, valid)
    with torch.autocast("cpu", dtype), calls:
        found = layer(frames.to(dtype), None if valid is None else valid.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=2e-2)
    return calls


@padded
@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_lstm_dtype_under_bfloat16_autocast(padded, supported, dtype, monkeypatch):
    """bfloat16 if the kernel supports it, else float32; autocast, which would cast to float16, is off."""
    monkeypatch.setattr("crnn_ext.models.lstm._lstm_takes_bfloat16", lambda device: supported)
    calls = lstm_calls(padded, torch.bfloat16)
    assert calls.dtypes == [{dtype}]
    assert calls.under_autocast == [False]


@padded
def test_lstm_under_float16_autocast(padded):
    assert lstm_calls(padded, torch.float16).under_autocast == [True]


@pytest.mark.parametrize(
    ("capability", "cudnn", "enabled", "supported"),
    [
        ((8, 0), 91300, True, True),
        ((12, 0), 92000, True, True),
        ((8, 0), 91002, True, False),
        ((7, 5), 91300, True, False),
        ((8, 0), None, True, False),
        ((8, 0), 91300, False, False),
    ],
)
def test_lstm_bfloat16_support_by_gpu(capability, cudnn, enabled, supported, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    with torch.backends.cudnn.flags(enabled=enabled):
        assert _lstm_takes_bfloat16(torch.device("cuda")) is supported
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda x: x + 1 if _lstm_takes_bfloat16(torch.device("cuda")) else x,
            backend="eager",
            fullgraph=True,
        )
        assert compiled(torch.zeros(())) == supported


@pytest.mark.parametrize("network", NETWORKS)
@padded
def test_models_lstms_in_bfloat16_under_autocast(network, padded):
    model, calls = small_network(network).train(), RecordLSTMCalls()
    with torch.autocast("cpu", torch.bfloat16), calls:
        logits = model(torch.randn(2, 1, 32, 40), [40, 21] if padded else None)
    assert calls.dtypes == [{torch.bfloat16}] * 2
    assert calls.under_autocast == [False] * 2
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


@padded
def test_models_float64_under_autocast(padded):
    model, images = small_network(CRNN).double(), torch.randn(2, 1, 32, 40, dtype=torch.float64)
    widths = [40, 21] if padded else None
    expected = model(images, widths)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(images, widths), expected)


def test_lstm_weight_layout_for_cudnn():
    """All matrices, then all biases, in one buffer, as flatten_parameters() lays out nn.LSTM on a GPU."""
    layer, valid = BidirectionalLSTM(3, 4, 2), torch.ones(5, 2, 1)
    for inputs, options in ((11, {}), (11, {"dtype": torch.bfloat16}), (3, {"dtype": torch.bfloat16})):
        calls = RecordLSTMCalls()
        frames = torch.randn(5, 2, 3).to(options.get("dtype", torch.float32))
        with calls:
            layer.rnn.run(frames, valid if inputs == 11 else None, **options)
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
def test_models_compile_under_autocast(trace_lstm):
    model, images, widths = small_network(CRNN), torch.randn(2, 1, 32, 12), torch.tensor([7, 12])
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=trace_lstm), torch.autocast("cpu", torch.bfloat16):
        compiled = torch.compile(model, backend="eager", fullgraph=trace_lstm)
        found, expected = compiled(images, widths), model(images, widths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


class RecordFloat16(TorchDispatchMode):
    """Records the operators with a float16 tensor among their arguments or results."""

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
def test_models_bfloat16_autocast_without_float16(device, network, padded):
    model, found = small_network(network).train().to(device), RecordFloat16()
    images = torch.randn(2, 1, 32, 40, device=device)
    with torch.autocast(device.type, torch.bfloat16), found:
        logits = model(images, torch.tensor([40, 21]) if padded else None)
    assert found.operators == []
    logits.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
def test_models_float16_autocast_with_float16(device):
    """The test above would find float16 tensors."""
    model, found = small_network(CRNN).train().to(device), RecordFloat16()
    with torch.autocast(device.type, torch.float16), found:
        model(torch.randn(2, 1, 32, 40, device=device))
    assert found.operators
