"""The three networks: names, shapes and order of their layers, arguments, state dicts."""

import inspect

import pytest
import torch
from helpers.networks import NETWORKS, small_network
from torch import nn

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2

# The layers in saved checkpoints with nc=1, nclass=37, nh=256: the shape of the weight of a convolution (and
# "bias" if it has one), or the channels of a batch norm.
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


@pytest.mark.parametrize(
    ("network", "table", "entries", "parameters"),
    [
        (CRNN, CRNN_LAYERS, 49, 8_331_301),
        (CRNN_v2, CRNN_V2_LAYERS, 81, 3_705_221),
        (CRNN_res, CRNN_RES_LAYERS, 155, 20_824_997),
    ],
)
def test_models_state_dict(network, table, entries, parameters):
    with torch.device("meta"):
        model = network(32, 1, 37, 256)
    found = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    assert found == table_entries(table)
    assert len(found) == entries
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


relu = torch.relu


def pool_rows(maps):
    return nn.functional.max_pool2d(maps, (2, 2), (2, 1), (0, 1))


def assert_forward(model, images, frames):
    """Asserts that the image layers output `frames`, and that the recurrent layers follow."""
    logits = frames
    for layer in (model.rnn[0], model.rnn[1]):
        logits = layer.embedding(layer.rnn(logits)[0])
    torch.testing.assert_close(model(images), logits)
    model.rnn = nn.Identity()
    torch.testing.assert_close(model(images), frames)


def test_crnn_layer_order():
    m, images = small_network(CRNN), torch.randn(2, 1, 32, 40)
    x = nn.functional.max_pool2d(relu(m.conv1(images)), 2)
    x = nn.functional.max_pool2d(relu(m.conv2(x)), 2)
    x = pool_rows(relu(m.conv3_2(relu(m.bn3(m.conv3_1(x))))))
    x = pool_rows(relu(m.conv4_2(relu(m.bn4(m.conv4_1(x))))))
    x = relu(m.bn5(m.conv5(x)))
    assert_forward(m, images, x[:, :, 0].permute(2, 0, 1))


def test_crnn_v2_layer_order():
    m, images = small_network(CRNN_v2), torch.randn(2, 1, 32, 40)
    x = relu(m.bn1_2(m.conv1_2(relu(m.bn1_1(m.conv1_1(images))))))
    x = nn.functional.max_pool2d(x, 2)
    x = relu(m.bn2_2(m.conv2_2(relu(m.bn2_1(m.conv2_1(x))))))
    x = nn.functional.max_pool2d(x, 2)
    x = pool_rows(relu(m.bn3_2(m.conv3_2(relu(m.bn3_1(m.conv3_1(x)))))))
    x = pool_rows(relu(m.bn4_2(m.conv4_2(relu(m.bn4_1(m.conv4_1(x)))))))
    # Feature 2 c + r of a frame is row r of channel c.
    x = torch.stack([m.bn5(x)[:, c, r] for c in range(8) for r in range(2)], dim=1)
    assert_forward(m, images, x.permute(2, 0, 1))


def test_crnn_res_layer_order():
    m, images = small_network(CRNN_res), torch.randn(2, 1, 32, 40)
    x = relu(m.conv1(images))
    for name in ("res1", "res2_1", "res2_2", "res3_1", "res3_2", "res3_3", "res4_1", "res4_2", "res4_3"):
        block = m.get_submodule(name)
        group = block.group1
        y = group.bn2(group.conv2(relu(group.bn1(group.conv1(x)))))
        x = relu(y + (block.downsample(x) if block.downsample else x))
    x = nn.functional.avg_pool2d(x, (2, 2), (2, 1), (0, 1))
    x = relu(m.bn5(m.conv5(x)))
    assert_forward(m, images, x[:, :, 0].permute(2, 0, 1))


@pytest.mark.parametrize("network", NETWORKS)
def test_models_batch_norm_epsilon(network):
    epsilons = {
        module.eps for module in small_network(network).modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert epsilons == {1e-5}


@pytest.mark.parametrize(("network", "activations"), [(CRNN, 7), (CRNN_v2, 8)])
def test_models_leaky_relu(network, activations):
    leaky, plain = small_network(network, leakyRelu=True), small_network(network)
    slopes = [module.negative_slope for module in leaky.modules() if isinstance(module, nn.LeakyReLU)]
    assert slopes == [0.2] * activations
    assert not any(isinstance(module, nn.ReLU) for module in leaky.modules())
    assert sum(isinstance(module, nn.ReLU) for module in plain.modules()) == activations
    plain.load_state_dict(leaky.state_dict())
    images = torch.randn(1, 1, 32, 40)
    assert not torch.allclose(leaky(images), plain(images))


def test_crnn_res_has_no_leaky_relu():
    assert "leakyRelu" not in inspect.signature(CRNN_res).parameters


@pytest.mark.parametrize(
    ("network", "channels", "features"),
    [
        (CRNN, [16, 32, 64, 64, 128, 128, 128], 128),
        (CRNN_v2, [8, 16, 16, 32, 24, 48, 32, 64], 128),
        (CRNN_res, [16, 16, 16, 32, 32, 32, 32, 32, *[64] * 7, *[128] * 8], 128),
    ],
)
def test_models_width_scales_every_convolution(network, channels, features):
    model = network(32, 1, 5, 4, width=0.25)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [convolution.out_channels for convolution in convolutions] == channels
    assert model.rnn[0].rnn.input_size == features
    assert model(torch.zeros(1, 1, 32, 16)).shape[1:] == (1, 5)


@pytest.mark.parametrize("network", NETWORKS)
def test_models_width_rounds_to_multiples_of_eight(network):
    for width in (1e-6, 0.3, 1.1):
        with torch.device("meta"):
            model = network(32, 1, 5, 4, width=width)
        channels = {module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)}
        assert min(channels) >= 8
        assert all(count % 8 == 0 for count in channels)


def test_models_width_is_keyword_only():
    for network in NETWORKS:
        assert inspect.signature(network).parameters["width"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imgH": 48}, "imgH must be 32, the height that its layers are built for, got 48"),
        ({"nc": 0}, "nc must be at least 1, got 0"),
        ({"nclass": 1}, r"nclass must be at least 2 \(the blank and one character\), got 1"),
        ({"nh": -2}, "nh must be at least 1, got -2"),
        ({"width": 0.0}, r"width must be finite and above 0, got 0\.0"),
        ({"width": float("inf")}, "width must be finite and above 0, got inf"),
        ({"width": float("nan")}, "width must be finite and above 0, got nan"),
    ],
)
def test_models_value_errors(network, change, message):
    arguments = {"imgH": 32, "nc": 1, "nclass": 5, "nh": 4} | change
    with pytest.raises(ValueError, match=f"{network.__name__}: {message}"):
        network(**arguments)


def test_models_type_errors():
    with pytest.raises(TypeError, match=r"CRNN: nh must be an int, got float"):
        CRNN(32, 1, 5, 4.0)
    with pytest.raises(TypeError, match="CRNN_v2: width must be a number, got str"):
        CRNN_v2(32, 1, 5, 4, width="half")


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("network", NETWORKS)
def test_models_load_data_parallel_state_dict(network):
    saved = small_network(network)
    state = prefixed(saved.state_dict(), "module.")
    torch.manual_seed(1)
    model = network(32, 1, 5, 4, width=0.01)
    names = list(state)
    result = model.load_state_dict(state)
    assert result.missing_keys == result.unexpected_keys == []
    assert list(state) == names
    for name, value in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_models_load_state_dict_as_submodule():
    saved = small_network(CRNN)
    wrapper = nn.DataParallel(CRNN(32, 1, 5, 4, width=0.01))
    wrapper.load_state_dict(prefixed(saved.state_dict(), "module."))
    assert torch.equal(wrapper.module.conv1.weight, saved.conv1.weight)

    holder = nn.ModuleDict({"reader": CRNN(32, 1, 5, 4, width=0.01), "head": nn.Linear(2, 2)})
    head = prefixed(holder["head"].state_dict(), "head.")
    for prefix in ("reader.", "reader.module."):
        holder["reader"] = CRNN(32, 1, 5, 4, width=0.01)
        holder.load_state_dict(prefixed(saved.state_dict(), prefix) | head)
        assert torch.equal(holder["reader"].conv1.weight, saved.conv1.weight)


def test_models_load_state_dict_strict():
    model = small_network(CRNN)
    wrapped = prefixed(model.state_dict(), "module.")
    with pytest.raises(RuntimeError, match=r"Missing key.*conv1\.bias"):
        model.load_state_dict({name: value for name, value in wrapped.items() if name != "module.conv1.bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*conv9\.bias"):
        model.load_state_dict(wrapped | {"module.conv9.bias": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for rnn\.1\.embedding\.bias"):
        model.load_state_dict(wrapped | {"module.rnn.1.embedding.bias": torch.zeros(9)})
    # The prefix must be common to all keys.
    mixed = prefixed(model.state_dict(), "") | {"module.conv1.bias": torch.zeros(8)}
    with pytest.raises(RuntimeError, match=r"Unexpected key.*module\.conv1\.bias"):
        model.load_state_dict(mixed)
