"""ctc_loss inside torch: operator contract, compile, export, autocast, second derivatives, memory."""

import pytest
import torch
import torch.utils.checkpoint
from reference.ctc import our_loss

from crnn_ext.ctc import CTCLoss, ctc_loss

TARGETS = torch.tensor([[1, 2], [3, 1]]), torch.tensor([6, 5]), torch.tensor([2, 1])


def logits(**options):
    return torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_operator_contract(reduction, dtype):
    x = logits().to(dtype).requires_grad_()
    operator = torch.ops.crnn_ext.ctc_loss.default
    torch.library.opcheck(operator, (x, *TARGETS, 0, reduction, False, True, True, True))
    concatenated = torch.tensor([1, 2, 3], dtype=torch.int32)
    torch.library.opcheck(operator, (x, concatenated, *TARGETS[1:], 0, reduction, True, False, True, True))


def test_operator_contract_of_the_gradient():
    x = logits()
    arguments = (*TARGETS, 0, 0)
    _, saved = torch.ops.crnn_ext.ctc_loss.default(x, *arguments, False, True, True, True)
    operator = torch.ops.crnn_ext.ctc_loss_backward.default
    torch.library.opcheck(operator, (torch.ones(2), x, *TARGETS, saved, 0, 0, True))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_into_one_graph(backend):
    torch._dynamo.reset()
    module = CTCLoss(zero_infinity=True)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for frames in (6, 9):  # the second shape is compiled as a dynamic one
        x = torch.randn(frames, 2, 4, requires_grad=True)
        expected = torch.autograd.grad(module(x * 2, *TARGETS), x)[0]
        torch.testing.assert_close(torch.autograd.grad(compiled(x * 2, *TARGETS), x)[0], expected)
    with pytest.raises(RuntimeError, match=r"targets\[0, 1\] is 9, but logits has C=4 classes"):
        compiled(x, torch.tensor([[1, 9], [3, 1]]), *TARGETS[1:])


def test_export():
    class Training(torch.nn.Module):
        def forward(self, x, targets, input_lengths, target_lengths):
            return ctc_loss(x, targets, input_lengths, target_lengths, reduction="sum")

    frames = torch.export.Dim("frames", min=2, max=512)
    shapes = {"x": {0: frames}, "targets": None, "input_lengths": None, "target_lengths": None}
    program = torch.export.export(Training(), (logits(), *TARGETS), dynamic_shapes=shapes)
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "crnn_ext.ctc_loss.default" in names
    longer = torch.randn(40, 2, 4)
    torch.testing.assert_close(
        program.module()(longer, *TARGETS), ctc_loss(longer, *TARGETS, reduction="sum")
    )


def test_autocast_casts_nothing():
    network = torch.nn.Linear(8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        x = network(torch.randn(6, 2, 8))
        assert x.dtype == torch.bfloat16
        loss = ctc_loss(x, *TARGETS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ctc_loss(x.detach(), *TARGETS))
    loss.backward()
    assert network.weight.grad.isfinite().all()
    _, gradient = our_loss(x.detach(), *TARGETS)
    assert gradient.dtype == torch.bfloat16


def test_a_second_derivative_raises():
    x = logits(requires_grad=True)
    (gradient,) = torch.autograd.grad(ctc_loss(x, *TARGETS), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(gradient.square().sum(), x)


def test_forward_mode_raises():
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits(), torch.ones(6, 2, 4))
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            ctc_loss(dual, *TARGETS)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_transforms_that_differentiate_raise(transform):
    with pytest.raises(RuntimeError, match="functorch transforms"):
        transform(lambda x: ctc_loss(x, *TARGETS))(logits())


def test_activation_checkpointing():
    layer = torch.nn.Linear(4, 4)

    def loss(x):
        return ctc_loss(layer(x).tanh(), *TARGETS)

    plain = torch.autograd.grad(loss(logits()), layer.weight)[0]
    torch.utils.checkpoint.checkpoint(loss, logits(), use_reentrant=False).backward()
    assert torch.equal(layer.weight.grad, plain)


def test_logits_changed_before_the_backward_pass_are_noticed():
    x = logits(requires_grad=True)
    y = x * 1
    loss = ctc_loss(y, *TARGETS)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_graph_may_be_kept_and_walked_twice():
    x = logits(requires_grad=True)
    loss = ctc_loss(x, *TARGETS)
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, x)[0], first)


def test_memory_held_for_the_backward_pass():
    frames, samples, classes, length = 50, 3, 1000, 7
    x = torch.randn(frames, samples, classes, requires_grad=True)
    targets = torch.randint(1, classes, (samples, length))
    lengths = torch.full((samples,), frames), torch.full((samples,), length)
    loss = ctc_loss(x, targets, *lengths)
    saved = loss.grad_fn.saved_tensors
    own = [tensor for tensor in saved if tensor.is_floating_point() and tensor.data_ptr() != x.data_ptr()]
    assert sum(tensor.untyped_storage().nbytes() for tensor in own) <= frames * samples * (length + 2) * 4
    operator = torch.ops.crnn_ext.ctc_loss.default
    _, without_gradient = operator(x, targets, *lengths, 0, 1, False, True, True, False)
    assert without_gradient.numel() == 0
