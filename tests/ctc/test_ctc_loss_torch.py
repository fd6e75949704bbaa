"""ctc_loss inside torch: opcheck, compile, export, autocast, second derivatives, saved memory."""

import pytest
import torch
import torch.utils.checkpoint
from reference.ctc import loss_and_grad

from crnn_ext.ctc import CTCLoss, ctc_loss


@pytest.fixture
def targets(device):
    """targets (N, S), input_lengths and target_lengths, for the logits below."""
    return tuple(torch.tensor(x, device=device) for x in ([[1, 2], [3, 1]], [6, 5], [2, 1]))


def logits(device, requires_grad=False):
    x = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0))
    return x.to(device).requires_grad_(requires_grad)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_ctc_loss_opcheck(device, targets, reduction, dtype):
    x = logits(device).to(dtype).requires_grad_()
    operator = torch.ops.crnn_ext.ctc_loss.default
    torch.library.opcheck(operator, (x, *targets, 0, reduction, False, True, True, True))
    concatenated = torch.tensor([1, 2, 3], dtype=torch.int32, device=device)
    torch.library.opcheck(operator, (x, concatenated, *targets[1:], 0, reduction, True, False, True, True))


def test_ctc_loss_backward_opcheck(device, targets):
    x = logits(device)
    arguments = (*targets, 0, 0)
    _, saved = torch.ops.crnn_ext.ctc_loss.default(x, *arguments, False, True, True, True)
    operator = torch.ops.crnn_ext.ctc_loss_backward.default
    torch.library.opcheck(operator, (torch.ones(2, device=device), x, *targets, saved, 0, 0, True))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_ctc_loss_compile(device, targets, backend):
    torch._dynamo.reset()
    module = CTCLoss(zero_infinity=True, validate=True)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for frames in (6, 9):  # the second shape triggers compilation with dynamic shapes
        x = torch.randn(frames, 2, 4, device=device, requires_grad=True)
        expected = torch.autograd.grad(module(x * 2, *targets), x)[0]
        torch.testing.assert_close(torch.autograd.grad(compiled(x * 2, *targets), x)[0], expected)
    with pytest.raises(RuntimeError, match=r"targets\[0, 1\] is 9, but logits has C=4 classes"):
        compiled(x, torch.tensor([[1, 9], [3, 1]], device=device), *targets[1:])


def test_ctc_loss_export(device, targets):
    class Training(torch.nn.Module):
        def forward(self, x, targets, input_lengths, target_lengths):
            return ctc_loss(x, targets, input_lengths, target_lengths, reduction="sum")

    frames = torch.export.Dim("frames", min=2, max=512)
    shapes = {"x": {0: frames}, "targets": None, "input_lengths": None, "target_lengths": None}
    program = torch.export.export(Training(), (logits(device), *targets), dynamic_shapes=shapes)
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "crnn_ext.ctc_loss.default" in names
    longer = torch.randn(40, 2, 4, device=device)
    torch.testing.assert_close(
        program.module()(longer, *targets), ctc_loss(longer, *targets, reduction="sum")
    )


def test_ctc_loss_autocast_keeps_dtype(device, targets):
    network = torch.nn.Linear(8, 4, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        x = network(torch.randn(6, 2, 8, device=device))
        assert x.dtype == torch.bfloat16
        loss = ctc_loss(x, *targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ctc_loss(x.detach(), *targets))
    loss.backward()
    assert network.weight.grad.isfinite().all()
    _, gradient = loss_and_grad(x.detach(), *targets)
    assert gradient.dtype == torch.bfloat16


def test_ctc_loss_double_backward_raises(device, targets):
    x = logits(device, requires_grad=True)
    (gradient,) = torch.autograd.grad(ctc_loss(x, *targets), x, create_graph=True)
    with pytest.raises(RuntimeError, match="the gradient is not differentiable"):
        torch.autograd.grad(gradient.square().sum(), x)


def test_ctc_loss_forward_mode_raises(device, targets):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits(device), torch.ones(6, 2, 4, device=device))
        with pytest.raises(NotImplementedError, match="forward-mode differentiation is not supported"):
            ctc_loss(dual, *targets)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_ctc_loss_functorch_transforms_raise(device, targets, transform):
    with pytest.raises(RuntimeError, match="functorch transforms"):
        transform(lambda x: ctc_loss(x, *targets))(logits(device))


def test_ctc_loss_activation_checkpointing(device, targets):
    layer = torch.nn.Linear(4, 4, device=device)

    def loss(x):
        return ctc_loss(layer(x).tanh(), *targets)

    plain = torch.autograd.grad(loss(logits(device)), layer.weight)[0]
    torch.utils.checkpoint.checkpoint(loss, logits(device), use_reentrant=False).backward()
    assert torch.equal(layer.weight.grad, plain)


def test_ctc_loss_logits_modified_before_backward(device, targets):
    x = logits(device, requires_grad=True)
    y = x * 1
    loss = ctc_loss(y, *targets)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("length", [100, -1])
def test_ctc_loss_lengths_modified_before_backward(device, length):
    """Through `.data`, autograd does not notice the modification; the gradient of the sample is NaN."""
    x = logits(device, requires_grad=True)
    targets = torch.arange(200).remainder(3).add(1).view(2, 100).to(device)
    input_lengths, target_lengths = (torch.tensor(y, device=device) for y in ([6, 6], [2, 2]))
    loss = ctc_loss(x, targets, input_lengths, target_lengths, reduction="sum")
    expected = torch.autograd.grad(loss, x, retain_graph=True)[0]
    target_lengths.data[1] = length
    gradient = torch.autograd.grad(loss, x)[0]
    assert torch.equal(gradient[:, 0], expected[:, 0])
    assert gradient[:, 1].isnan().all()


def test_ctc_loss_retain_graph(device, targets):
    x = logits(device, requires_grad=True)
    loss = ctc_loss(x, *targets)
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, x)[0], first)


def test_ctc_loss_saved_memory(device):
    frames, samples, classes, length = 50, 3, 1000, 7
    x = torch.randn(frames, samples, classes, device=device, requires_grad=True)
    targets = torch.randint(1, classes, (samples, length), device=device)
    lengths = (
        torch.full((samples,), frames, device=device),
        torch.full((samples,), length, device=device),
    )
    loss = ctc_loss(x, targets, *lengths)
    saved = loss.grad_fn.saved_tensors
    floats = [tensor for tensor in saved if tensor.is_floating_point() and tensor.data_ptr() != x.data_ptr()]
    assert sum(tensor.untyped_storage().nbytes() for tensor in floats) <= frames * samples * (length + 2) * 4
    operator = torch.ops.crnn_ext.ctc_loss.default
    _, without_gradient = operator(x, targets, *lengths, 0, 1, False, True, True, False)
    assert without_gradient.numel() == 0


@pytest.mark.parametrize("concatenated", [False, True])
def test_ctc_loss_targets_beyond_longest_target(device, targets, concatenated):
    x = logits(device)
    labels = torch.tensor([1, 2, 3], device=device) if concatenated else targets[0]
    arguments = (labels, *targets[1:], 0, 0)

    def losses_and_gradient(*longest):
        losses, saved = torch.ops.crnn_ext.ctc_loss(x, *arguments, False, True, False, True, *longest)
        ones = torch.ones(2, device=device)
        return losses, torch.ops.crnn_ext.ctc_loss_backward(
            ones, x, *arguments[:3], saved, 0, 0, True, *longest
        )

    losses, gradient = losses_and_gradient()
    for a, b in zip(losses_and_gradient(2), (losses, gradient), strict=True):
        assert torch.equal(a, b)
    losses_of_short, gradient_of_short = losses_and_gradient(1)
    assert losses_of_short[0].isnan()
    assert gradient_of_short[:, 0].isnan().all()
    assert torch.equal(losses_of_short[1], losses[1])
    assert torch.equal(gradient_of_short[:, 1], gradient[:, 1])
    with pytest.raises(RuntimeError, match=r"target_lengths\[0\] is 2, but longest_target is 1"):
        torch.ops.crnn_ext.ctc_loss(x, *arguments, False, True, True, True, 1)
    with pytest.raises(RuntimeError, match="longest_target must be at least -1, got -2"):
        losses_and_gradient(-2)
