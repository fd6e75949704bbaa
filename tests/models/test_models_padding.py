"""Padding does not change what the networks make of an image, nor what they learn from it."""

import copy
import itertools

import pytest
import torch
from helpers.networks import NETWORKS, requires_dynamic_width_export, small_network
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2
from crnn_ext.models.lstm import BidirectionalLSTM
from crnn_ext.models.padding import ValidColumns, masked_batch_norm

KINDS = [
    (CRNN, {}),
    (CRNN, {"leakyRelu": True}),
    (CRNN_v2, {}),
    (CRNN_v2, {"leakyRelu": True}),
    (CRNN_res, {}),
]
kinds = pytest.mark.parametrize(("network", "options"), KINDS)


def padded(images, columns, content):
    """Images `(1, nc, 32, width)` as one batch with so many columns, and its widths."""
    batch = images[0].new_full((len(images), *images[0].shape[1:3], columns), content)
    for row, image in zip(batch, images, strict=True):
        row[..., : image.shape[3]] = image[0]
    return batch, torch.tensor([image.shape[3] for image in images])


def random_images(widths, **options):
    return [torch.randn(1, 1, 32, width, **options) for width in widths]


def assert_reads_as_alone(model, images, columns, content, atol):
    batch, widths = padded(images, columns, content)
    with torch.no_grad():
        logits = model(batch, widths)
        alone = [model(image)[:, 0] for image in images]
    assert logits.shape[:2] == (model.output_lengths(columns), len(images))
    assert logits.isfinite().all()
    for n, expected in enumerate(alone):
        torch.testing.assert_close(logits[: len(expected), n], expected, rtol=0, atol=atol)


@kinds
@settings(deadline=None, max_examples=60)
@given(
    widths=st.lists(st.integers(4, 70), min_size=1, max_size=5),
    more=st.integers(0, 20),
    content=st.sampled_from([0.0, 1.0, -1.0, 1e4, float("nan"), float("inf")]),
)
@example(widths=[40, 39, 38, 37, 36, 35, 34, 33, 32], more=0, content=1.0)
def test_logits_are_those_of_the_image_alone(network, options, widths, more, content):
    model = small_network(network, **options)
    assert_reads_as_alone(model, random_images(widths), max(widths) + more, content, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_of_a_full_network_are_those_of_the_image_alone(network):
    torch.manual_seed(0)
    model = network(32, 1, 37, 256).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    assert_reads_as_alone(model, random_images([90, 31, 4]), 100, 1.0, atol=1e-4)


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("network", NETWORKS)
def test_on_a_gpu_in_full_float32_logits_are_those_of_the_image_alone(device, network):
    model = small_network(network).to(device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert_reads_as_alone(model, random_images([70, 31, 4, 9], device=device), 77, 1.0, atol=1e-4)


@kinds
def test_without_widths_padding_is_read(network, options):
    """What the tests above would see if a layer let padding through."""
    model = small_network(network, **options)
    [image] = random_images([33])
    with torch.no_grad():
        alone = model(image)
        beside = model(padded([image], 40, 1.0)[0])[: len(alone)]
    assert (alone - beside).abs().max() > 1e-2


@kinds
def test_widths_of_all_columns_change_nothing(network, options):
    model = small_network(network, **options)
    images = torch.randn(3, 1, 32, 45)
    with torch.no_grad():
        torch.testing.assert_close(model(images, [45] * 3), model(images), rtol=0, atol=1e-6)
    assert model(images[:0], []).shape == (model.output_lengths(45), 0, 5)


def test_widths_are_any_integers():
    model, images = small_network(CRNN), torch.randn(3, 1, 32, 45)
    expected = model(images, torch.tensor([45, 7, 20]))
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16):
        assert torch.equal(model(images, torch.tensor([45, 7, 20], dtype=dtype)), expected)
    for widths in ([45, 7, 20], (45, 7, 20)):
        assert torch.equal(model(images, widths), expected)


@pytest.mark.parametrize(
    ("widths", "error", "message"),
    [
        ([45, 7], ValueError, r"widths must have shape \(N,\) = \(3,\), got \(2,\)"),
        (torch.tensor([[45, 7, 9]]), ValueError, r"widths must have shape .* got \(1, 3\)"),
        (45, ValueError, r"widths must have shape .* got \(\)"),
        ([45, 46, 9], ValueError, r"widths\[1\] must be in \[4, 45\], got 46"),
        ([45, 7, 3], ValueError, r"widths\[2\] must be in \[4, 45\], got 3"),
        ([45.0, 7.0, 9.0], TypeError, r"widths must be integers, got torch\.float32"),
    ],
)
def test_bad_widths(widths, error, message):
    with pytest.raises(error, match=f"CRNN: {message}"):
        small_network(CRNN)(torch.randn(3, 1, 32, 45), widths)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_no_value_of_widths_is_read(network, training):
    """Tensors on the meta device have none: as on a GPU, where reading one would wait for it."""
    model = small_network(network).to("meta").train(training)
    logits = model(torch.zeros(2, 1, 32, 45, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta"))
    assert logits.shape == (model.output_lengths(45), 2, 5)


class Reference:
    """A network in training that has each image in a tensor of its own, without any padding.

    Only normalisation sees them together: torch's own, on the pixels of all in one row.
    """

    def __init__(self, model):
        self.model = model

    def __call__(self, images):
        maps = images
        for name, layer in self.model.named_children():
            if name != "rnn":
                maps = self.layer(layer, maps)
        return [self.model.rnn(each.permute(3, 0, 1, 2).flatten(2))[:, 0] for each in maps]

    def layer(self, layer, maps):
        if isinstance(layer, nn.BatchNorm2d):
            pixels = layer(torch.cat([each.flatten(2) for each in maps], 2).unsqueeze(2))[0, :, 0]
            parts = pixels.split([each[0, 0].numel() for each in maps], 1)
            # Activations work in place, and not on views of one tensor.
            return [part.clone().view(each.shape) for part, each in zip(parts, maps, strict=True)]
        if hasattr(layer, "group1"):
            shortcut = maps if layer.downsample is None else self.layer(layer.downsample, maps)
            group = self.layer(layer.group1, maps)
            return [torch.relu(a + b) for a, b in zip(group, shortcut, strict=True)]
        if isinstance(layer, nn.Sequential):
            for part in layer:
                maps = self.layer(part, maps)
            return maps
        return [layer(each) for each in maps]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_learns_the_same(model, other, logits, expected, atol):
    """Logits of each sample, gradients and running statistics."""
    weights = [torch.randn_like(each) for each in expected]
    for each, other_each in zip(logits, expected, strict=True):
        torch.testing.assert_close(each, other_each, rtol=0, atol=atol)
    losses = [
        sum((each * weight).sum() for each, weight in zip(of_model, weights, strict=True))
        for of_model in (logits, expected)
    ]
    found, wanted = gradients(model, losses[0]), gradients(other, losses[1])
    largest = max(gradient.abs().max().item() for gradient in wanted.values())
    torch.testing.assert_close(found, wanted, rtol=0, atol=atol * largest)
    torch.testing.assert_close(dict(model.named_buffers()), dict(other.named_buffers()), rtol=0, atol=atol)


@kinds
@settings(deadline=None, max_examples=10)
@given(
    widths=st.lists(st.integers(4, 50), min_size=2, max_size=4),
    more=st.integers(0, 12),
    content=st.sampled_from([0.0, 1.0, 1e4, float("nan")]),
)
def test_training_learns_from_live_columns_alone(network, options, widths, more, content):
    model = small_network(network, **options).double().train()
    other = copy.deepcopy(model)
    images = random_images(widths, dtype=torch.float64)
    batch, columns = padded(images, max(widths) + more, content)
    batch.requires_grad_()
    logits = model(batch, columns)
    live = [logits[:frames, n] for n, frames in enumerate(model.output_lengths(columns))]
    assert_learns_the_same(model, other, live, Reference(other)(images), atol=1e-9)
    for pixels, width in zip(batch.grad, widths, strict=True):
        assert pixels[..., :width].abs().max() > 0
        assert (pixels[..., width:] == 0).all()


@kinds
def test_training_with_equal_widths_changes_nothing(network, options):
    model = small_network(network, **options).train()
    other = copy.deepcopy(model)
    images = torch.randn(4, 1, 32, 45)
    assert_learns_the_same(model, other, [model(images, [45] * 4)], [other(images)], atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_frozen_normalisation_stays_as_it_is(network):
    model = small_network(network)
    images = random_images([30, 12])
    expected = [model(image)[:, 0] for image in images]
    before = [buffer.clone() for buffer in model.buffers()]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    logits = model(*padded(images, 35, 1.0))
    for n, alone in enumerate(expected):
        torch.testing.assert_close(logits[: len(alone), n], alone, rtol=0, atol=1e-5)
    assert all(itertools.starmap(torch.equal, zip(before, model.buffers(), strict=True)))


def test_gradients_of_normalisation():
    """Those of what it makes of padding too, which no loss should read."""
    layer = nn.BatchNorm2d(3).double()
    live = ValidColumns.of(torch.tensor([4, 1, 6]), 6, torch.float64)
    maps = torch.randn(3, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: masked_batch_norm(layer, maps, live), [maps])


class NormalisationGradients(TorchDispatchMode):
    """Remembers what torch's backward pass of batch normalisation is called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.aten.native_batch_norm_backward.default:
            self.calls.append(arguments)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("columns", [1, 6])
def test_gradients_of_normalisation_have_all_that_any_kernel_reads(columns):
    """Those of torch for CUDA take mean and deviation now from the running ones, now from the saved ones."""
    layer, seen = nn.BatchNorm2d(3), NormalisationGradients()
    live = ValidColumns.of(torch.tensor([1, 1]), columns, torch.float32)
    maps = torch.randn(2, 3, 1, columns, requires_grad=True)
    with seen:
        masked_batch_norm(layer, maps, live).square().sum().backward()
    [(_, pixels, _, mean, variance, saved_mean, saved_inverse, training, eps, _)] = seen.calls
    assert pixels.shape == maps.shape
    assert not training
    assert torch.equal(saved_mean, mean)
    torch.testing.assert_close(saved_inverse, 1 / (variance + eps).sqrt())
    own = maps.detach()[..., 0].squeeze(2)  # (N, C)
    torch.testing.assert_close(mean, own.mean(0))
    torch.testing.assert_close(variance, own.var(0, correction=0))


def test_gradients_of_normalisation_of_one_column_are_those_of_torch():
    """As images of less than four columns have behind the second pooling."""
    layer = nn.BatchNorm2d(3).double()
    other = copy.deepcopy(layer)
    maps = torch.randn(5, 3, 2, 1, dtype=torch.float64, requires_grad=True)
    live = ValidColumns.of(torch.ones(5, dtype=torch.int64), 1, torch.float64)
    weights = torch.randn_like(maps)
    found, expected = (
        torch.autograd.grad((normalised * weights).sum(), [maps, *norm.parameters()])
        for norm, normalised in ((layer, masked_batch_norm(layer, maps, live)), (other, other(maps)))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
@pytest.mark.parametrize("widths", [[1, 1, 1], [2, 3, 1]])
def test_training_on_images_of_few_columns(device, widths):
    model = small_network(CRNN_res).to(device).train()
    logits = model(torch.randn(3, 1, 32, max(widths), device=device), torch.tensor(widths))
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_statistics_under_autocast_are_float32():
    """A mean of many values needs digits that theirs have not: around 10, bfloat16 has steps of 1/16."""
    layer = nn.BatchNorm2d(2)
    maps = (torch.randn(4, 2, 8, 50) / 8 + 10).bfloat16()
    live = ValidColumns.of(torch.tensor([50, 13, 1, 37]), 50, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        normalised = masked_batch_norm(layer, maps, live)
    assert normalised.dtype == torch.bfloat16
    rows = zip(maps.double(), live.columns, strict=True)
    pixels = torch.cat([row[..., :width].flatten(1) for row, width in rows], 1)
    torch.testing.assert_close(layer.running_mean.double(), 0.1 * pixels.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.running_var.double(), 0.9 + 0.1 * pixels.var(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_mixed_precision(network):
    model = small_network(network).train()
    batch, widths = padded(random_images([40, 21]), 44, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch, widths)
    logits.float().square().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    scale=st.sampled_from([0.5, 5.0, 50.0]),
)
def test_lstm_reads_as_a_packed_sequence(lengths, scale):
    layer = BidirectionalLSTM(3, 4, 2).double()
    with torch.no_grad():
        for parameter in layer.rnn.parameters():
            parameter.uniform_(-scale, scale)
    frames = torch.randn(max(lengths) + 2, len(lengths), 3, dtype=torch.float64)
    live = (torch.arange(len(frames)).unsqueeze(1) < torch.tensor(lengths)).double().unsqueeze(2)
    packed = nn.utils.rnn.pack_padded_sequence(frames, lengths, enforce_sorted=False)
    read, _ = nn.utils.rnn.pad_packed_sequence(layer.rnn(packed)[0], total_length=len(frames))
    expected = layer.embedding(read) * live
    found = layer(frames, live) * live
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    wanted, got = gradients(layer, (expected * weights).sum()), gradients(layer, (found * weights).sum())
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
@requires_dynamic_width_export
@pytest.mark.filterwarnings("ignore:The tensor attributes? self.rnn", "ignore:_check_is_size will be removed")
def test_export_with_dynamic_batch_and_widths(network):
    model = small_network(network)
    batch = torch.export.Dim("batch")
    dynamic = {"images": {0: batch, 3: torch.export.Dim("columns", min=8, max=4096)}, "widths": {0: batch}}
    arguments = torch.randn(2, 1, 32, 50), torch.tensor([50, 31])
    program = torch.export.export(model, arguments, dynamic_shapes=dynamic).module()
    for widths in ([31, 50], [8], [93, 4, 60]):
        images = torch.randn(len(widths), 1, 32, max(widths))
        expected = model(images, widths)
        torch.testing.assert_close(program(images, torch.tensor(widths)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("trace_lstm", [False, True])
def test_compile_leaves_lstms_to_their_own_kernels_unless_told_otherwise(trace_lstm):
    graphs = []

    def backend(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph

    model, images, widths = small_network(CRNN), torch.randn(2, 1, 32, 12), torch.tensor([7, 12])
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=trace_lstm):
        compiled = torch.compile(model, backend=backend, fullgraph=trace_lstm)
        torch.testing.assert_close(compiled(images, widths), model(images, widths), rtol=0, atol=1e-6)
    assert sum("lstm" in target for graph in graphs for target in graph) == (2 if trace_lstm else 0)
    assert len(graphs) == (1 if trace_lstm else 3)
