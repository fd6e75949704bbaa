"""The forward pass of the three networks: output lengths, errors, gradients, copies, export and compile."""

import copy
import functools
import pickle

import pytest
import torch
from helpers.networks import NETWORKS, requires_dynamic_width_export, small_network
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2
from crnn_ext.models.layers import Window

MIN_WIDTH = {CRNN: 4, CRNN_v2: 4, CRNN_res: 1}


@pytest.mark.parametrize(
    ("network", "frames"), [(CRNN, [26, 33, 41]), (CRNN_v2, [27, 34, 42]), (CRNN_res, [25, 32, 40])]
)
def test_models_frames_of_common_widths(network, frames):
    model = small_network(network, nc=3, nclass=7)
    assert model.output_lengths([100, 128, 160]).tolist() == frames
    with torch.no_grad():
        shapes = [model(torch.zeros(2, 3, 32, width)).shape for width in (100, 128, 160)]
    assert shapes == [(count, 2, 7) for count in frames]


@pytest.mark.parametrize("network", NETWORKS)
def test_output_lengths_equal_forward(network):
    model = small_network(network)
    widths = range(MIN_WIDTH[network], 201)
    with torch.no_grad():
        frames = [model(torch.zeros(1, 1, 32, width)).shape[0] for width in widths]
    assert model.output_lengths(widths).tolist() == frames
    assert model.min_width == MIN_WIDTH[network]
    assert min(frames) >= 1


@pytest.mark.parametrize("network", NETWORKS)
def test_output_lengths_integer_dtypes(network):
    model = small_network(network)
    expected = model.output_lengths([8, 9, 100])
    assert expected.dtype == torch.int64
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16):
        lengths = model.output_lengths(torch.tensor([8, 9, 100], dtype=dtype))
        assert lengths.dtype == torch.int64
        assert lengths.tolist() == expected.tolist()
    assert model.output_lengths((8, 9, 100)).tolist() == expected.tolist()
    assert model.output_lengths(torch.tensor([[8], [100]])).tolist() == expected[[0, 2]].unsqueeze(1).tolist()
    for width in (100, torch.tensor(100)):
        assert model.output_lengths(width).tolist() == expected[2]
    assert model.output_lengths([]).dtype == torch.int64
    assert model.output_lengths(torch.zeros(2, dtype=torch.int64, device="meta")).device.type == "meta"


@pytest.mark.parametrize("network", NETWORKS)
def test_output_lengths_zero_below_min_width(network):
    narrow = range(-3, MIN_WIDTH[network])
    assert small_network(network).output_lengths(narrow).tolist() == [0] * len(narrow)


@pytest.mark.parametrize("widths", [[8.0], torch.tensor([8.0]), torch.tensor([True])])
def test_output_lengths_type_errors(widths):
    with pytest.raises(TypeError, match=r"CRNN: widths must be integers, got torch\.(float32|bool)"):
        small_network(CRNN).output_lengths(widths)


@given(
    columns=st.integers(1, 40), kernel=st.integers(1, 6), stride=st.integers(1, 4), padding=st.integers(0, 3)
)
def test_window_columns_equal_conv2d(columns, kernel, stride, padding):
    layer = nn.Conv2d(1, 1, (1, kernel), (1, stride), (0, padding))
    window = Window(kernel, stride, padding)
    if columns + 2 * padding < kernel:
        assert window.columns(columns) == 0
        return
    assert window.columns(columns) == layer(torch.zeros(1, 1, 1, columns)).shape[3]
    assert window.columns(torch.tensor([columns, 0, -1])).tolist() == [window.columns(columns), 0, 0]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 2, 32, 40), (1, 1, 31, 40), (1, 32, 40), (1, 1, 1, 32, 40)])
def test_models_image_shape_errors(network, shape):
    with pytest.raises(ValueError, match=rf"images must have shape \(N, nc=1, imgH=32, W\).*\({shape[0]}, "):
        small_network(network)(torch.zeros(shape))


@pytest.mark.parametrize("network", NETWORKS)
def test_models_image_width_errors(network):
    least = MIN_WIDTH[network]
    with pytest.raises(ValueError, match=f"at least {least} columns wide .* but are {least - 1}"):
        small_network(network)(torch.zeros(1, 1, 32, least - 1))


def test_models_image_dtype_error():
    with pytest.raises(TypeError, match=r"images must be floating point, got torch\.uint8"):
        small_network(CRNN)(torch.zeros(1, 1, 32, 40, dtype=torch.uint8))


@pytest.mark.parametrize("network", NETWORKS)
def test_models_gradient_reaches_every_parameter(network):
    # In training mode, a bias before a batch norm cancels, and its gradient is rounding error.
    model = small_network(network)
    images = torch.randn(2, 1, 32, 40, requires_grad=True)
    model(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_models_batch_equals_single_images(network):
    model = small_network(network)
    images = torch.randn(5, 1, 32, 61)
    with torch.no_grad():
        batch = model(images)
        single = torch.cat([model(image[None]) for image in images], dim=1)
    torch.testing.assert_close(batch, single, rtol=0, atol=1e-5)
    assert model(images[:0]).shape == (batch.shape[0], 0, 5)


@pytest.mark.parametrize("network", NETWORKS)
def test_models_float64_and_copies(network):
    model = small_network(network).double()
    images = torch.randn(1, 1, 32, 20, dtype=torch.float64)
    expected = model(images)
    assert expected.dtype == torch.float64
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(copied(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_models_copied_lstm_flattens_weights(make_copy, monkeypatch):
    """Otherwise torch flattens the weights at every call on a GPU, and warns."""
    flattened = []
    monkeypatch.setattr(nn.LSTM, "flatten_parameters", lambda self: flattened.append(self))
    copied = make_copy(small_network(CRNN))
    lstms = [module for module in copied.modules() if isinstance(module, nn.LSTM)]
    assert len(lstms) == 2
    for lstm in lstms:
        assert any(each is lstm for each in flattened)
        # flatten_parameters reads _flat_weights.
        expected = [id(weight) for weight in lstm.parameters()]
        assert [id(weight) for weight in lstm._flat_weights] == expected


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.filterwarnings("error:RNN module weights are not part of single contiguous chunk")
def test_models_copies_on_gpu_have_flat_weights(device):
    model = small_network(CRNN).to(device)
    images = torch.randn(1, 1, 32, 20, device=device)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(copied(images), model(images))
        for lstm in (copied.rnn[0].rnn, copied.rnn[1].rnn):
            assert len({weight.untyped_storage().data_ptr() for weight in lstm.parameters()}) == 1


@pytest.mark.parametrize("network", NETWORKS)
@requires_dynamic_width_export
@pytest.mark.filterwarnings("ignore:The tensor attributes? self.rnn", "ignore:_check_is_size will be removed")
def test_models_export_dynamic_batch_and_width(network):
    model = small_network(network)
    dynamic = {"images": {0: torch.export.Dim("batch"), 3: torch.export.Dim("columns", min=8, max=4096)}}
    program = torch.export.export(model, (torch.randn(2, 1, 32, 50),), dynamic_shapes=dynamic)
    for shape in ((2, 1, 32, 50), (1, 1, 32, 8), (3, 1, 32, 93)):
        images = torch.randn(shape)
        torch.testing.assert_close(program.module()(images), model(images), rtol=0, atol=1e-6)


@requires_dynamic_width_export
@pytest.mark.filterwarnings("ignore:The tensor attributes? self.rnn", "ignore:_check_is_size will be removed")
def test_models_export_keeps_other_tracing():
    lstm = nn.LSTM(2, 2)
    arguments = dict(lstm.named_parameters()), torch.zeros(3, 1, 2)

    def trace():
        read = functools.partial(torch.func.functional_call, lstm)
        return make_fx(read, tracing_mode="symbolic")(*arguments).code

    before = trace()
    dynamic = {"images": {3: torch.export.Dim("columns", min=8, max=4096)}}
    torch.export.export(small_network(CRNN), (torch.randn(1, 1, 32, 50),), dynamic_shapes=dynamic)
    assert trace() == before


def test_models_compile():
    model = small_network(CRNN)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        images = torch.randn(2, 1, 32, 8)
        torch.testing.assert_close(compiled(images), model(images), rtol=0, atol=1e-6)


def test_output_lengths_compile():
    model = small_network(CRNN_res)
    compiled = torch.compile(model.output_lengths, backend="eager", fullgraph=True)
    widths = torch.tensor([1, 37, 100])
    assert compiled(widths).tolist() == model.output_lengths(widths).tolist()
