"""The three networks: names and shapes of their parameters, frames per width, errors, loading, tracing."""

import copy
import functools
import inspect
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2
from crnn_ext.models.layers import Window

NETWORKS = [CRNN, CRNN_v2, CRNN_res]
MIN_WIDTH = {CRNN: 4, CRNN_v2: 4, CRNN_res: 1}

# Layer by layer, as saved checkpoints have them with nc=1, nclass=37, nh=256: the shape of a convolution's
# weight (and bias), or the channels of a batch normalisation.
CRNN_LAYERS = """
conv1 64 1 3 3 bias
conv2 128 64 3 3 bias
conv3_1 256 128 3 3 bias
bn3 256
conv3_2 256 256 3 3 bias
conv4_1 512 256 3 3 bias
bn4 512
conv4_2 512 512 3 3 bias
conv5 512 512 2 2 bias
bn5 512
"""

CRNN_V2_LAYERS = """
conv1_1 32 1 3 3 bias
bn1_1 32
conv1_2 64 32 3 3 bias
bn1_2 64
conv2_1 64 64 3 3 bias
bn2_1 64
conv2_2 128 64 3 3 bias
bn2_2 128
conv3_1 96 128 3 3 bias
bn3_1 96
conv3_2 192 96 3 3 bias
bn3_2 192
conv4_1 128 192 3 3 bias
bn4_1 128
conv4_2 256 128 3 3 bias
bn4_2 256
bn5 256
"""

CRNN_RES_LAYERS = """
conv1 64 1 3 3 bias
res1.group1.conv1 64 64 3 3
res1.group1.bn1 64
res1.group1.conv2 64 64 3 3
res1.group1.bn2 64
res2_1.group1.conv1 128 64 3 3
res2_1.group1.bn1 128
res2_1.group1.conv2 128 128 3 3
res2_1.group1.bn2 128
res2_1.downsample.0 128 64 1 1
res2_1.downsample.1 128
res2_2.group1.conv1 128 128 3 3
res2_2.group1.bn1 128
res2_2.group1.conv2 128 128 3 3
res2_2.group1.bn2 128
res3_1.group1.conv1 256 128 3 3
res3_1.group1.bn1 256
res3_1.group1.conv2 256 256 3 3
res3_1.group1.bn2 256
res3_1.downsample.0 256 128 1 1
res3_1.downsample.1 256
res3_2.group1.conv1 256 256 3 3
res3_2.group1.bn1 256
res3_2.group1.conv2 256 256 3 3
res3_2.group1.bn2 256
res3_3.group1.conv1 256 256 3 3
res3_3.group1.bn1 256
res3_3.group1.conv2 256 256 3 3
res3_3.group1.bn2 256
res4_1.group1.conv1 512 256 3 3
res4_1.group1.bn1 512
res4_1.group1.conv2 512 512 3 3
res4_1.group1.bn2 512
res4_1.downsample.0 512 256 1 1
res4_1.downsample.1 512
res4_2.group1.conv1 512 512 3 3
res4_2.group1.bn1 512
res4_2.group1.conv2 512 512 3 3
res4_2.group1.bn2 512
res4_3.group1.conv1 512 512 3 3
res4_3.group1.bn1 512
res4_3.group1.conv2 512 512 3 3
res4_3.group1.bn2 512
conv5 512 512 2 2 bias
bn5 512
"""

RECURRENCE = [
    ("rnn.0.rnn.weight_ih_l0", (1024, 512)),
    ("rnn.0.rnn.weight_hh_l0", (1024, 256)),
    ("rnn.0.rnn.bias_ih_l0", (1024,)),
    ("rnn.0.rnn.bias_hh_l0", (1024,)),
    ("rnn.0.rnn.weight_ih_l0_reverse", (1024, 512)),
    ("rnn.0.rnn.weight_hh_l0_reverse", (1024, 256)),
    ("rnn.0.rnn.bias_ih_l0_reverse", (1024,)),
    ("rnn.0.rnn.bias_hh_l0_reverse", (1024,)),
    ("rnn.0.embedding.weight", (256, 512)),
    ("rnn.0.embedding.bias", (256,)),
    ("rnn.1.rnn.weight_ih_l0", (1024, 256)),
    ("rnn.1.rnn.weight_hh_l0", (1024, 256)),
    ("rnn.1.rnn.bias_ih_l0", (1024,)),
    ("rnn.1.rnn.bias_hh_l0", (1024,)),
    ("rnn.1.rnn.weight_ih_l0_reverse", (1024, 256)),
    ("rnn.1.rnn.weight_hh_l0_reverse", (1024, 256)),
    ("rnn.1.rnn.bias_ih_l0_reverse", (1024,)),
    ("rnn.1.rnn.bias_hh_l0_reverse", (1024,)),
    ("rnn.1.embedding.weight", (37, 512)),
    ("rnn.1.embedding.bias", (37,)),
]


def table_entries(table):
    entries = []
    for line in table.split("\n")[1:-1]:
        name, *numbers = line.split()
        shape = tuple(int(number) for number in numbers if number != "bias")
        entries.append((f"{name}.weight", shape))
        if "bias" in numbers:
            entries.append((f"{name}.bias", shape[:1]))
        if len(shape) == 1:
            entries += [(f"{name}.{part}", shape) for part in ("bias", "running_mean", "running_var")]
            entries.append((f"{name}.num_batches_tracked", ()))
    return entries + RECURRENCE


def small(network, nc=1, nclass=5, nh=4, **options):
    """A network of 8 channels everywhere, in eval mode, with statistics that its normalisations must use."""
    torch.manual_seed(0)
    model = network(32, nc, nclass, nh, width=0.01, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    ("network", "table", "entries", "parameters"),
    [
        (CRNN, CRNN_LAYERS, 49, 8_331_301),
        (CRNN_v2, CRNN_V2_LAYERS, 81, 3_705_221),
        (CRNN_res, CRNN_RES_LAYERS, 155, 20_824_997),
    ],
)
def test_state_dict(network, table, entries, parameters):
    with torch.device("meta"):
        model = network(32, 1, 37, 256)
    found = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    assert found == table_entries(table)
    assert len(found) == entries
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("network", "frames"), [(CRNN, [26, 33, 41]), (CRNN_v2, [27, 34, 42]), (CRNN_res, [25, 32, 40])]
)
def test_frames_of_common_widths(network, frames):
    model = small(network, nc=3, nclass=7)
    assert model.output_lengths([100, 128, 160]).tolist() == frames
    with torch.no_grad():
        shapes = [model(torch.zeros(2, 3, 32, width)).shape for width in (100, 128, 160)]
    assert shapes == [(count, 2, 7) for count in frames]


@pytest.mark.parametrize("network", NETWORKS)
def test_output_lengths_are_those_of_forward(network):
    model = small(network)
    widths = range(MIN_WIDTH[network], 201)
    with torch.no_grad():
        frames = [model(torch.zeros(1, 1, 32, width)).shape[0] for width in widths]
    assert model.output_lengths(widths).tolist() == frames
    assert model.min_width == MIN_WIDTH[network]
    assert min(frames) >= 1


@pytest.mark.parametrize("network", NETWORKS)
def test_output_lengths_take_any_integers(network):
    model = small(network)
    expected = model.output_lengths([8, 9, 100])
    assert expected.dtype == torch.int64
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16):
        lengths = model.output_lengths(torch.tensor([8, 9, 100], dtype=dtype))
        assert lengths.dtype == torch.int64
        assert lengths.tolist() == expected.tolist()
    assert model.output_lengths((8, 9, 100)).tolist() == expected.tolist()
    assert model.output_lengths(torch.tensor([[8], [100]])).tolist() == expected[[0, 2]].unsqueeze(1).tolist()
    assert model.output_lengths(torch.tensor(100)).item() == expected[2]
    assert model.output_lengths([]).dtype == torch.int64
    assert model.output_lengths(torch.zeros(2, dtype=torch.int64, device="meta")).device.type == "meta"


@pytest.mark.parametrize("network", NETWORKS)
def test_output_lengths_of_too_narrow_images_are_zero(network):
    narrow = range(-3, MIN_WIDTH[network])
    assert small(network).output_lengths(narrow).tolist() == [0] * len(narrow)


@pytest.mark.parametrize("widths", [[8.0], torch.tensor([8.0]), torch.tensor([True])])
def test_output_lengths_refuse_what_is_not_an_integer(widths):
    with pytest.raises(TypeError, match=r"CRNN: widths must be integers, but are torch\.(float32|bool)"):
        small(CRNN).output_lengths(widths)


@settings(deadline=None, max_examples=60)
@given(
    columns=st.integers(1, 40), kernel=st.integers(1, 6), stride=st.integers(1, 4), padding=st.integers(0, 3)
)
def test_window_arithmetic_is_that_of_a_convolution(columns, kernel, stride, padding):
    layer = nn.Conv2d(1, 1, (1, kernel), (1, stride), (0, padding))
    window = Window(kernel, stride, padding)
    if columns + 2 * padding < kernel:
        assert window.columns(columns) == 0
        return
    assert window.columns(columns) == layer(torch.zeros(1, 1, 1, columns)).shape[3]
    assert window.columns(torch.tensor([columns, 0, -1])).tolist() == [window.columns(columns), 0, 0]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imgH": 48}, "imgH must be 32, .* is 48"),
        ({"nc": 0}, "nc must be at least 1, but is 0"),
        ({"nclass": 1}, r"nclass must be at least 2 \(the blank and one character\), but is 1"),
        ({"nh": -2}, "nh must be at least 1, but is -2"),
        ({"width": 0.0}, r"width must be finite and above 0, but is 0\.0"),
        ({"width": float("inf")}, "width must be finite and above 0, but is inf"),
        ({"width": float("nan")}, "width must be finite and above 0, but is nan"),
    ],
)
def test_bad_arguments(network, change, message):
    arguments = {"imgH": 32, "nc": 1, "nclass": 5, "nh": 4} | change
    with pytest.raises(ValueError, match=f"{network.__name__}: {message}"):
        network(**arguments)


def test_sizes_must_be_int():
    with pytest.raises(TypeError, match=r"CRNN: nh must be an int, but is 4\.0"):
        CRNN(32, 1, 5, 4.0)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 2, 32, 40), (1, 1, 31, 40), (1, 32, 40), (1, 1, 1, 32, 40)])
def test_images_of_another_shape(network, shape):
    with pytest.raises(ValueError, match=rf"images must have shape \(N, nc=1, imgH=32, W\).*\({shape[0]}, "):
        small(network)(torch.zeros(shape))


@pytest.mark.parametrize("network", NETWORKS)
def test_images_that_are_too_narrow(network):
    least = MIN_WIDTH[network]
    with pytest.raises(ValueError, match=f"at least {least} columns wide .* but are {least - 1}"):
        small(network)(torch.zeros(1, 1, 32, least - 1))


def test_images_of_integers():
    with pytest.raises(TypeError, match=r"images must be floating point, but are torch\.uint8"):
        small(CRNN)(torch.zeros(1, 1, 32, 40, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("network", "channels", "features"),
    [
        (CRNN, [16, 32, 64, 64, 128, 128, 128], 128),
        (CRNN_v2, [8, 16, 16, 32, 24, 48, 32, 64], 128),
        (CRNN_res, [16, 16, 16, 32, 32, 32, 32, 32, *[64] * 7, *[128] * 8], 128),
    ],
)
def test_width_scales_every_convolution(network, channels, features):
    model = network(32, 1, 5, 4, width=0.25)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [convolution.out_channels for convolution in convolutions] == channels
    assert model.rnn[0].rnn.input_size == features
    assert model(torch.zeros(1, 1, 32, 16)).shape[1:] == (1, 5)


@pytest.mark.parametrize("network", NETWORKS)
def test_width_leaves_at_least_eight_channels_and_rounds_to_eight(network):
    for width in (1e-6, 0.3, 1.1):
        with torch.device("meta"):
            model = network(32, 1, 5, 4, width=width)
        channels = {module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)}
        assert min(channels) >= 8
        assert all(count % 8 == 0 for count in channels)


def test_width_is_keyword_only():
    for network in NETWORKS:
        assert inspect.signature(network).parameters["width"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(("network", "activations"), [(CRNN, 7), (CRNN_v2, 8)])
def test_leaky_relu_is_used(network, activations):
    leaky, plain = small(network, leakyRelu=True), small(network)
    slopes = [module.negative_slope for module in leaky.modules() if isinstance(module, nn.LeakyReLU)]
    assert slopes == [0.2] * activations
    assert not any(isinstance(module, nn.ReLU) for module in leaky.modules())
    assert sum(isinstance(module, nn.ReLU) for module in plain.modules()) == activations
    plain.load_state_dict(leaky.state_dict())
    images = torch.randn(1, 1, 32, 40)
    assert not torch.allclose(leaky(images), plain(images))


def test_crnn_res_has_no_leaky_relu():
    assert "leakyRelu" not in inspect.signature(CRNN_res).parameters


def test_layers_run_in_the_published_order():
    """Each network once more, written out with the layers' names, against its `forward`."""
    images = torch.randn(2, 1, 32, 40)
    relu, pool = torch.relu, nn.functional.max_pool2d

    def pool_rows(x):
        return pool(x, (2, 2), (2, 1), (0, 1))

    m = small(CRNN)
    x = pool(relu(m.conv1(images)), 2)
    x = pool(relu(m.conv2(x)), 2)
    x = pool_rows(relu(m.conv3_2(relu(m.bn3(m.conv3_1(x))))))
    x = pool_rows(relu(m.conv4_2(relu(m.bn4(m.conv4_1(x))))))
    x = relu(m.bn5(m.conv5(x)))
    torch.testing.assert_close(m(images), m.rnn(x[:, :, 0].permute(2, 0, 1)))

    m = small(CRNN_v2)
    x = images
    for stage, pooling in (
        (1, lambda x: pool(x, 2)),
        (2, lambda x: pool(x, 2)),
        (3, pool_rows),
        (4, pool_rows),
    ):
        for step in (1, 2):
            layer = f"{stage}_{step}"
            x = relu(m.get_submodule(f"bn{layer}")(m.get_submodule(f"conv{layer}")(x)))
        x = pooling(x)
    # Feature 2 c + r of a frame is row r of channel c.
    x = torch.stack([m.bn5(x)[:, c, r] for c in range(8) for r in range(2)], dim=1)
    torch.testing.assert_close(m(images), m.rnn(x.permute(2, 0, 1)))

    m = small(CRNN_res)

    def block(layer, x):
        group = layer.group1
        y = group.bn2(group.conv2(relu(group.bn1(group.conv1(x)))))
        return relu(y + (layer.downsample(x) if layer.downsample else x))

    x = relu(m.conv1(images))
    for name in ("res1", "res2_1", "res2_2", "res3_1", "res3_2", "res3_3", "res4_1", "res4_2", "res4_3"):
        x = block(m.get_submodule(name), x)
    x = nn.functional.avg_pool2d(x, (2, 2), (2, 1), (0, 1))
    x = relu(m.bn5(m.conv5(x)))
    torch.testing.assert_close(m(images), m.rnn(x[:, :, 0].permute(2, 0, 1)))


@pytest.mark.parametrize("network", NETWORKS)
def test_gradient_reaches_every_parameter(network):
    # In training mode a bias in front of a batch normalisation cancels, and its gradient is rounding.
    model = small(network)
    images = torch.randn(2, 1, 32, 40, requires_grad=True)
    model(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_batch_equals_one_by_one(network):
    model = small(network)
    images = torch.randn(5, 1, 32, 61)
    with torch.no_grad():
        batch = model(images)
        single = torch.cat([model(image[None]) for image in images], dim=1)
    torch.testing.assert_close(batch, single, rtol=0, atol=1e-5)
    assert model(images[:0]).shape == (batch.shape[0], 0, 5)


@pytest.mark.parametrize("network", NETWORKS)
def test_double_precision_and_copies(network):
    model = small(network).double()
    images = torch.randn(1, 1, 32, 20, dtype=torch.float64)
    expected = model(images)
    assert expected.dtype == torch.float64
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(again(images), expected, rtol=0, atol=0)


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("network", NETWORKS)
def test_state_of_a_data_parallel_wrapper_loads(network):
    saved = small(network)
    wrapped = prefixed(saved.state_dict(), "module.")
    torch.manual_seed(1)
    model = network(32, 1, 5, 4, width=0.01)
    names = list(wrapped)
    result = model.load_state_dict(wrapped)
    assert result.missing_keys == result.unexpected_keys == []
    assert list(wrapped) == names
    for name, value in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_state_loads_into_and_inside_other_modules():
    saved = small(CRNN)
    wrapper = nn.DataParallel(CRNN(32, 1, 5, 4, width=0.01))
    wrapper.load_state_dict(prefixed(saved.state_dict(), "module."))
    assert torch.equal(wrapper.module.conv1.weight, saved.conv1.weight)

    holder = nn.ModuleDict({"reader": CRNN(32, 1, 5, 4, width=0.01), "head": nn.Linear(2, 2)})
    head = prefixed(holder["head"].state_dict(), "head.")
    for prefix in ("reader.", "reader.module."):
        holder["reader"] = CRNN(32, 1, 5, 4, width=0.01)
        holder.load_state_dict(prefixed(saved.state_dict(), prefix) | head)
        assert torch.equal(holder["reader"].conv1.weight, saved.conv1.weight)


def test_loading_stays_strict():
    model = small(CRNN)
    wrapped = prefixed(model.state_dict(), "module.")
    with pytest.raises(RuntimeError, match=r"Missing key.*conv1\.bias"):
        model.load_state_dict({name: value for name, value in wrapped.items() if name != "module.conv1.bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*conv9\.bias"):
        model.load_state_dict(wrapped | {"module.conv9.bias": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for rnn\.1\.embedding\.bias"):
        model.load_state_dict(wrapped | {"module.rnn.1.embedding.bias": torch.zeros(9)})
    # Only a prefix that all keys share is one.
    mixed = prefixed(model.state_dict(), "") | {"module.conv1.bias": torch.zeros(8)}
    with pytest.raises(RuntimeError, match=r"Unexpected key.*module\.conv1\.bias"):
        model.load_state_dict(mixed)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.filterwarnings("ignore:The tensor attributes? self.rnn", "ignore:_check_is_size will be removed")
def test_export_with_dynamic_batch_and_width(network):
    model = small(network)
    dynamic = {"images": {0: torch.export.Dim("batch"), 3: torch.export.Dim("columns", min=8, max=4096)}}
    program = torch.export.export(model, (torch.randn(2, 1, 32, 50),), dynamic_shapes=dynamic)
    for shape in ((2, 1, 32, 50), (1, 1, 32, 8), (3, 1, 32, 93)):
        images = torch.randn(shape)
        torch.testing.assert_close(program.module()(images), model(images), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The tensor attributes? self.rnn", "ignore:_check_is_size will be removed")
def test_export_and_other_tracing_do_not_disturb_each_other():
    lstm = nn.LSTM(2, 2)
    arguments = dict(lstm.named_parameters()), torch.zeros(3, 1, 2)

    def trace():
        read = functools.partial(torch.func.functional_call, lstm)
        return make_fx(read, tracing_mode="symbolic")(*arguments).code

    before = trace()
    dynamic = {"images": {3: torch.export.Dim("columns", min=8, max=4096)}}
    torch.export.export(small(CRNN), (torch.randn(1, 1, 32, 50),), dynamic_shapes=dynamic)
    assert trace() == before


@pytest.mark.parametrize("network", NETWORKS)
def test_compile_into_one_graph(network):
    model = small(network)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
        for shape in ((2, 1, 32, 50), (3, 1, 32, 93)):
            images = torch.randn(shape)
            torch.testing.assert_close(compiled(images), model(images), rtol=0, atol=1e-6)


def test_output_lengths_compile_into_one_graph():
    model = small(CRNN_res)
    compiled = torch.compile(model.output_lengths, backend="eager", fullgraph=True)
    widths = torch.tensor([1, 37, 100])
    assert compiled(widths).tolist() == model.output_lengths(widths).tolist()
