"""Padding changes neither the logits of an image nor the gradients and statistics of a training step."""

import copy
import itertools

import pytest
import torch
from helpers.fuzz import slow_examples
from helpers.networks import NETWORKS, requires_dynamic_width_export, small_network
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2
from crnn_ext.models.lstm import BidirectionalLSTM
from crnn_ext.models.padding import ValidColumns, masked_batch_norm

VARIANTS = [
    (CRNN, {}),
    (CRNN, {"leakyRelu": True}),
    (CRNN_v2, {}),
    (CRNN_v2, {"leakyRelu": True}),
    (CRNN_res, {}),
]
variants = pytest.mark.parametrize(("network", "options"), VARIANTS)


def padded(images, columns, content):
    """(a batch of the images `(1, nc, 32, width)`, padded with `content` to `columns`; their widths)."""
    batch = images[0].new_full((len(images), *images[0].shape[1:3], columns), content)
    for row, image in zip(batch, images, strict=True):
        row[..., : image.shape[3]] = image[0]
    return batch, torch.tensor([image.shape[3] for image in images])


def random_images(widths, **options):
    return [torch.randn(1, 1, 32, width, **options) for width in widths]


def assert_equals_unpadded(model, images, columns, content, atol):
    batch, widths = padded(images, columns, content)
    with torch.no_grad():
        logits = model(batch, widths)
        unpadded = [model(image)[:, 0] for image in images]
    assert logits.shape[:2] == (model.output_lengths(columns), len(images))
    assert logits.isfinite().all()
    for n, expected in enumerate(unpadded):
        torch.testing.assert_close(logits[: len(expected), n], expected, rtol=0, atol=atol)


@variants
@given(
    widths=st.lists(st.integers(4, 70), min_size=1, max_size=5),
    more=st.integers(0, 20),
    content=st.sampled_from([0.0, 1.0, -1.0, 1e4, float("nan"), float("inf")]),
)
@example(widths=[40, 39, 38, 37, 36, 35, 34, 33, 32], more=0, content=1.0)
def test_padding_logits_equal_unpadded_image(network, options, widths, more, content):
    model = small_network(network, **options)
    assert_equals_unpadded(model, random_images(widths), max(widths) + more, content, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_logits_of_full_size_network(network):
    torch.manual_seed(0)
    model = network(32, 1, 37, 256).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    assert_equals_unpadded(model, random_images([90, 31, 4]), 100, 1.0, atol=1e-4)


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("network", NETWORKS)
def test_padding_logits_on_gpu_in_full_float32(device, network):
    model = small_network(network).to(device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert_equals_unpadded(model, random_images([70, 31, 4, 9], device=device), 77, 1.0, atol=1e-4)


@variants
def test_padding_changes_logits_without_widths(network, options):
    """The tests above would fail if a layer read the padding."""
    model = small_network(network, **options)
    [image] = random_images([33])
    with torch.no_grad():
        unpadded = model(image)
        logits = model(padded([image], 40, 1.0)[0])[: len(unpadded)]
    assert (unpadded - logits).abs().max() > 1e-2


@variants
def test_padding_widths_of_all_columns(network, options):
    model = small_network(network, **options)
    images = torch.randn(3, 1, 32, 45)
    with torch.no_grad():
        torch.testing.assert_close(model(images, [45] * 3), model(images), rtol=0, atol=1e-6)
    assert model(images[:0], []).shape == (model.output_lengths(45), 0, 5)


def test_padding_widths_integer_dtypes():
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
def test_padding_width_errors(widths, error, message):
    with pytest.raises(error, match=f"CRNN: {message}"):
        small_network(CRNN)(torch.randn(3, 1, 32, 45), widths)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_padding_widths_values_are_not_read(network, training):
    """Tensors on the meta device have no values; on a GPU, reading one would synchronize."""
    model = small_network(network).to("meta").train(training)
    logits = model(torch.zeros(2, 1, 32, 45, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta"))
    assert logits.shape == (model.output_lengths(45), 2, 5)


class Reference:
    """A network in training mode that keeps each image in a separate tensor, without padding.

    Only torch's batch norm processes the images together: the pixels of all images form one row.
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
            # Activations are in-place, which views of one tensor do not allow.
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


def assert_equal_training_steps(model, other, logits, expected, atol):
    """Compares logits, gradients and running statistics of the two models."""
    weights = [torch.randn_like(each) for each in expected]
    for each, other_each in zip(logits, expected, strict=True):
        torch.testing.assert_close(each, other_each, rtol=0, atol=atol)
    losses = [
        sum((each * weight).sum() for each, weight in zip(of_model, weights, strict=True))
        for of_model in (logits, expected)
    ]
    found, reference = gradients(model, losses[0]), gradients(other, losses[1])
    largest = max(gradient.abs().max().item() for gradient in reference.values())
    torch.testing.assert_close(found, reference, rtol=0, atol=atol * largest)
    torch.testing.assert_close(dict(model.named_buffers()), dict(other.named_buffers()), rtol=0, atol=atol)


@variants
@slow_examples
@given(
    widths=st.lists(st.integers(4, 50), min_size=2, max_size=4),
    more=st.integers(0, 12),
    content=st.sampled_from([0.0, 1.0, 1e4, float("nan")]),
)
def test_padding_training_uses_valid_columns_only(network, options, widths, more, content):
    model = small_network(network, **options).double().train()
    other = copy.deepcopy(model)
    images = random_images(widths, dtype=torch.float64)
    batch, columns = padded(images, max(widths) + more, content)
    batch.requires_grad_()
    logits = model(batch, columns)
    valid_logits = [logits[:frames, n] for n, frames in enumerate(model.output_lengths(columns))]
    assert_equal_training_steps(model, other, valid_logits, Reference(other)(images), atol=1e-9)
    for pixels, width in zip(batch.grad, widths, strict=True):
        assert pixels[..., :width].abs().max() > 0
        assert (pixels[..., width:] == 0).all()


@variants
def test_padding_training_with_equal_widths(network, options):
    model = small_network(network, **options).train()
    other = copy.deepcopy(model)
    images = torch.randn(4, 1, 32, 45)
    assert_equal_training_steps(model, other, [model(images, [45] * 4)], [other(images)], atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_frozen_batch_norm(network):
    model = small_network(network)
    images = random_images([30, 12])
    expected = [model(image)[:, 0] for image in images]
    before = [buffer.clone() for buffer in model.buffers()]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    logits = model(*padded(images, 35, 1.0))
    for n, unpadded in enumerate(expected):
        torch.testing.assert_close(logits[: len(unpadded), n], unpadded, rtol=0, atol=1e-5)
    assert all(itertools.starmap(torch.equal, zip(before, model.buffers(), strict=True)))


def test_masked_batch_norm_gradcheck():
    """Includes the gradients through the outputs in padding columns, which no loss should read."""
    layer = nn.BatchNorm2d(3).double()
    valid = ValidColumns.of(torch.tensor([4, 1, 6]), 6, torch.float64)
    maps = torch.randn(3, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: masked_batch_norm(layer, maps, valid), [maps])


class RecordBatchNormBackward(TorchDispatchMode):
    """Records the arguments of torch's native_batch_norm_backward."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.aten.native_batch_norm_backward.default:
            self.calls.append(arguments)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("columns", [1, 6])
def test_masked_batch_norm_backward_arguments(columns):
    """The CUDA kernels of torch read either the running or the saved mean and deviation."""
    layer, recorded = nn.BatchNorm2d(3), RecordBatchNormBackward()
    valid = ValidColumns.of(torch.tensor([1, 1]), columns, torch.float32)
    maps = torch.randn(2, 3, 1, columns, requires_grad=True)
    with recorded:
        masked_batch_norm(layer, maps, valid).square().sum().backward()
    [(_, pixels, _, mean, variance, saved_mean, saved_inverse, training, eps, _)] = recorded.calls
    assert pixels.shape == maps.shape
    assert not training
    assert torch.equal(saved_mean, mean)
    torch.testing.assert_close(saved_inverse, 1 / (variance + eps).sqrt())
    valid_pixels = maps.detach()[..., 0].squeeze(2)  # (N, C)
    torch.testing.assert_close(mean, valid_pixels.mean(0))
    torch.testing.assert_close(variance, valid_pixels.var(0, correction=0))


def test_masked_batch_norm_of_one_column_equals_torch():
    """Images of fewer than four columns have one column after the second pooling."""
    layer = nn.BatchNorm2d(3).double()
    other = copy.deepcopy(layer)
    maps = torch.randn(5, 3, 2, 1, dtype=torch.float64, requires_grad=True)
    valid = ValidColumns.of(torch.ones(5, dtype=torch.int64), 1, torch.float64)
    weights = torch.randn_like(maps)
    found, expected = (
        torch.autograd.grad((normalized * weights).sum(), [maps, *norm.parameters()])
        for norm, normalized in ((layer, masked_batch_norm(layer, maps, valid)), (other, other(maps)))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
@pytest.mark.parametrize("widths", [[1, 1, 1], [2, 3, 1]])
def test_padding_training_on_few_columns(device, widths):
    model = small_network(CRNN_res).to(device).train()
    logits = model(torch.randn(3, 1, 32, max(widths), device=device), torch.tensor(widths))
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_masked_batch_norm_statistics_in_float32_under_autocast():
    """The mean needs more digits than its inputs: around 10, bfloat16 has steps of 1/16."""
    layer = nn.BatchNorm2d(2)
    maps = (torch.randn(4, 2, 8, 50) / 8 + 10).bfloat16()
    valid = ValidColumns.of(torch.tensor([50, 13, 1, 37]), 50, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        normalized = masked_batch_norm(layer, maps, valid)
    assert normalized.dtype == torch.bfloat16
    rows = zip(maps.double(), valid.columns, strict=True)
    pixels = torch.cat([row[..., :width].flatten(1) for row, width in rows], 1)
    torch.testing.assert_close(layer.running_mean.double(), 0.1 * pixels.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.running_var.double(), 0.9 + 0.1 * pixels.var(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_training_under_autocast(network):
    model = small_network(network).train()
    batch, widths = padded(random_images([40, 21]), 44, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch, widths)
    logits.float().square().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@slow_examples
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    scale=st.sampled_from([0.5, 5.0, 50.0]),
)
def test_bidirectional_lstm_equals_packed_sequence(lengths, scale):
    layer = BidirectionalLSTM(3, 4, 2).double()
    with torch.no_grad():
        for parameter in layer.rnn.parameters():
            parameter.uniform_(-scale, scale)
    frames = torch.randn(max(lengths) + 2, len(lengths), 3, dtype=torch.float64)
    valid = (torch.arange(len(frames)).unsqueeze(1) < torch.tensor(lengths)).double().unsqueeze(2)
    packed = nn.utils.rnn.pack_padded_sequence(frames, lengths, enforce_sorted=False)
    unpacked, _ = nn.utils.rnn.pad_packed_sequence(layer.rnn(packed)[0], total_length=len(frames))
    expected = layer.embedding(unpacked) * valid
    found = layer(frames, valid) * valid
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    expected_gradients = gradients(layer, (expected * weights).sum())
    found_gradients = gradients(layer, (found * weights).sum())
    torch.testing.assert_close(found_gradients, expected_gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
@requires_dynamic_width_export
@pytest.mark.filterwarnings("ignore:The tensor attributes? self.rnn", "ignore:_check_is_size will be removed")
def test_padding_export_dynamic_batch_and_width(network):
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
def test_padding_compile_graph_breaks_at_lstm(trace_lstm):
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
