"""Targets and lengths for logits on another device: checks of their values, and the copy in one transfer."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from crnn_ext.ctc import align, ctc_loss, log_probability
from crnn_ext.ctc._indices import _pack, _unpack, check_cpu_values, index_tensor, to_device


def test_indices_pack_and_unpack():
    tensors = [
        torch.arange(6, dtype=torch.int32).view(2, 3).t(),
        torch.tensor([2**40, -1]),
        torch.empty(0, 4, dtype=torch.int64),
        torch.tensor([3]),
    ]
    packed = _pack(tensors, pin_memory=False)
    assert packed.shape == (9,)
    for part, tensor in zip(_unpack(packed, [t.shape for t in tensors]), tensors, strict=True):
        assert part.dtype == torch.int64
        assert torch.equal(part, tensor.long())


def test_indices_on_same_device_are_not_copied():
    tensors = [torch.tensor([1]), torch.tensor([[2]], dtype=torch.int32)]
    assert to_device(tensors, torch.device("cpu")) is tensors


def on_other_device(tensor):
    """The tensor on the meta device, whose values the CPU cannot read, as on a GPU."""
    return tensor.to("meta")


VALID = torch.tensor([[1, 2], [3, 1]]), torch.tensor([4, 5]), torch.tensor([2, 1])
INVALID = torch.tensor([[1, 9], [3, 1]]), torch.tensor([4, 6]), torch.tensor([2, 3])
MESSAGES = (
    "targets[0, 1] is 9, but logits has C=4 classes",
    "input_lengths[1] is 6, but logits has T=5 frames",
    "target_lengths[1] is 3, but targets has S=2 columns",
)


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("invalid", [0, 1, 2])
@pytest.mark.parametrize("on_cpu", [(0, 1, 2), (0, 2), (1, 2), (0, 1), (0,), (1,), (2,), ()])
def test_indices_checked_only_on_cpu(on_cpu, invalid, blank):
    valid = [torch.where(VALID[0] == blank, 2, VALID[0]), *VALID[1:]]
    indices = [INVALID[i] if i == invalid else valid[i] for i in range(3)]
    indices = [tensor if i in on_cpu else on_other_device(tensor) for i, tensor in enumerate(indices)]
    # Labels are checked only with the target lengths, which tell them from padding.
    if invalid in on_cpu and (invalid != 0 or 2 in on_cpu):
        with pytest.raises(RuntimeError) as raised:
            check_cpu_values("ctc_loss", indices, 5, 4, blank)
        assert str(raised.value).splitlines()[0] == f"ctc_loss: {MESSAGES[invalid]}"
    else:
        check_cpu_values("ctc_loss", indices, 5, 4, blank)


def test_indices_with_other_default_device():
    """Index tensors are created on the CPU, whatever the default device."""
    torch.set_default_device("meta")
    try:
        assert index_tensor("lengths", [1, 2]).tolist() == [1, 2]
        assert _pack([torch.tensor([7], device="cpu")], pin_memory=False).tolist() == [7]
        for on_cpu in [(0, 1, 2), (1, 2), (0, 1)]:
            indices = [tensor if i in on_cpu else on_other_device(tensor) for i, tensor in enumerate(VALID)]
            check_cpu_values("ctc_loss", indices, 5, 4, 0)
    finally:
        torch.set_default_device(None)


def test_indices_input_lengths_check():
    with pytest.raises(RuntimeError, match=r"greedy_decode: input_lengths\[1\] is 6, but logits has T=5"):
        torch.ops.crnn_ext.input_lengths_check.default(torch.tensor([5, 6]), 5, "greedy_decode")
    torch.ops.crnn_ext.input_lengths_check.default(torch.tensor([5, 0]), 5, "greedy_decode")


def test_indices_errors_name_text_and_operator():
    targets = torch.tensor([[1, 2], [3, 1], [1, 1], [2, 9]])
    lengths = torch.tensor([4, 5]), torch.tensor([2, 2, 2, 2])
    with pytest.raises(RuntimeError, match=r"log_probability: targets\[1, 1, 1\] is 9, but logits has C=4"):
        check_cpu_values("log_probability", [targets, *lengths], 5, 4, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 2), *VALID[1:]), "targets and lengths must be"),
        ((torch.zeros(2, 2, 2, dtype=torch.long), *VALID[1:]), "targets and lengths must be"),
        ((torch.zeros(3, 2, dtype=torch.long), *VALID[1:]), "the same number of samples"),
        ((VALID[0], torch.tensor(3), VALID[2]), "targets and lengths must be"),
        ((VALID[0], VALID[1], torch.tensor([1])), "the same number of samples"),
    ],
)
def test_indices_targets_check_shape_errors(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.crnn_ext.targets_check.default(*arguments, 5, 4, 0, "ctc_loss")


def longest_target_of(function, arguments):
    """The argument `longest_target` of a call, which may omit it as a trailing default."""
    names = [argument.name for argument in function._schema.arguments]
    return dict(zip(names, arguments, strict=False)).get("longest_target", -1)


class RecordLongestTargets(TorchDispatchMode):
    """Records the argument `longest_target` of each operator by name."""

    def __init__(self):
        super().__init__()
        self.recorded = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(argument.name == "longest_target" for argument in function._schema.arguments):
            self.recorded[function._schema.name] = longest_target_of(function, args)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("validate", [None, False])
@pytest.mark.parametrize("concatenated", [False, True])
@pytest.mark.parametrize("lengths_on_other_device", [False, True])
def test_indices_longest_target_passed_to_other_devices(concatenated, validate, lengths_on_other_device):
    """Without it, the operators allocate for the labels of all texts together."""
    logits = torch.randn(600, 3, 9, device="meta", requires_grad=True)
    targets = torch.ones((600,) if concatenated else (3, 300), dtype=torch.long)
    lengths = torch.tensor([200, 300, 100])
    if lengths_on_other_device:
        lengths = on_other_device(lengths)
    with RecordLongestTargets() as calls:
        ctc_loss(logits, targets, [600] * 3, lengths, validate=validate).backward()
        align(logits, targets, [600] * 3, lengths)
        if not concatenated:
            log_probability(logits, targets.unsqueeze(1), [600] * 3, lengths.unsqueeze(1), validate=validate)
    names = ["ctc_loss", "ctc_loss_backward", "align", *([] if concatenated else ["log_probability"])]
    assert calls.recorded == {f"crnn_ext::{name}": -1 if lengths_on_other_device else 300 for name in names}


@pytest.mark.parametrize("lengths", [[], [-1, -1, 5]])
def test_indices_longest_target_of_empty_and_negative_lengths(lengths):
    logits = torch.randn(6, len(lengths), 9, device="meta")
    with RecordLongestTargets() as calls:
        ctc_loss(logits, [1] * 5, [6] * len(lengths), lengths, validate=False)
    assert calls.recorded == {"crnn_ext::ctc_loss": max(lengths, default=-1)}


@pytest.mark.parametrize("tracing_mode", ["real", "fake", "symbolic"])
def test_indices_longest_target_unknown_under_tracing(tracing_mode):
    lengths = torch.tensor([2, 3])

    def losses(logits, targets, lengths):
        return ctc_loss(logits, targets, [6, 6], lengths, reduction="none", validate=False)

    graph = make_fx(losses, tracing_mode=tracing_mode)(
        torch.randn(6, 2, 9, device="meta"), torch.ones(2, 3, dtype=torch.long), lengths
    )
    (call,) = (node for node in graph.graph.nodes if node.target is torch.ops.crnn_ext.ctc_loss.default)
    assert longest_target_of(call.target, call.args) == -1


def test_indices_fake_tensors():
    with FakeTensorMode():
        logits = torch.randn(6, 2, 9, device="meta")
        losses = ctc_loss(logits, [[1, 2], [3, 4]], [6, 6], [2, 2], reduction="none", validate=False)
        assert losses.shape == (2,)
