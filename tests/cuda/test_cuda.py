"""GPU-only behavior: CUDA graphs, streams, several devices and asynchronous calls."""

import pytest
import torch
from helpers.operator_calls import CALLS, OPERATORS
from reference.ctc import loss_and_grad, no_synchronization, torch_loss_and_grad

from crnn_ext.ctc import CTCLoss, align, beam_search, ctc_loss, greedy_decode, log_probability
from crnn_ext.text import Charset, HotWords, Lexicon

pytestmark = pytest.mark.parametrize("device", ["cuda"], indirect=True)


def batch(device, frames=30, samples=4, classes=37, length=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, samples, classes, generator=generator) * 3
    targets = torch.randint(1, classes, (samples, length), generator=generator)
    input_lengths = torch.randint(2 * length + 1, frames + 1, (samples,), generator=generator)
    target_lengths = torch.randint(0, length + 1, (samples,), generator=generator)
    return [tensor.to(device) for tensor in (logits, targets, input_lengths, target_lengths)]


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("concatenated", [False, True])
def test_loss_and_gradient_in_a_graph(device, reduction, concatenated):
    """Captures once and replays with other values of the same shapes."""

    def inputs(seed):
        logits, targets, input_lengths, target_lengths = batch(device, seed=seed)
        if concatenated:
            target_lengths = torch.tensor([8, 0, 3, 5], device=device).roll(seed)
            targets = targets.flatten()[:16]
        return logits, targets, input_lengths, target_lengths

    def step(logits, *arguments):
        losses = ctc_loss(logits, *arguments, reduction=reduction)
        return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]

    static = [tensor.clone() for tensor in inputs(0)]
    static[0].requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(*static)
    for seed in (1, 2):
        fresh = inputs(seed)
        for to, tensor in zip(static, fresh, strict=True):
            to.detach().copy_(tensor)
        graph.replay()
        eager = step(fresh[0].requires_grad_(), *fresh[1:])
        for a, b in zip(captured, eager, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator_in_a_graph(device, operator):
    call, static = CALLS[operator], batch(device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call(*static)
    fresh = batch(device, seed=1)
    for to, tensor in zip(static, fresh, strict=True):
        to.copy_(tensor)
    graph.replay()
    for a, b in zip(captured, call(*fresh), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("constrained", [False, True])
def test_beam_search_in_a_graph(device, constrained):
    options = {"beam_size": 20, "nbest": 20}
    if constrained:
        charset = Charset("abcdefghijklmnopqrstuvwxyz 012345678")
        words = [a + b for a in "abcdef" for b in "ghijkl"]
        options["lexicon"] = Lexicon.from_words(words, charset, unknown_score=-2.0)
        options["hotwords"] = HotWords.from_words(["agahai"], charset)
    logits, _, lengths, _ = batch(device)
    beam_search(logits, lengths, **options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = beam_search(logits, lengths, **options)
    fresh, _, fresh_lengths, _ = batch(device, seed=1)
    logits.copy_(fresh)
    lengths.copy_(fresh_lengths)
    graph.replay()
    for a, b in zip(captured, beam_search(fresh, fresh_lengths, **options), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("concatenated", [False, True])
def test_alignment_in_a_graph(device, concatenated):
    def inputs(seed):
        logits, targets, input_lengths, target_lengths = batch(device, seed=seed)
        if concatenated:
            target_lengths = torch.tensor([8, 0, 3, 5], device=device).roll(seed)
            targets = targets.flatten()[:16]
        return logits, targets, input_lengths, target_lengths

    static = inputs(0)
    align(*static)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = align(*static)
    fresh = inputs(1)
    for to, tensor in zip(static, fresh, strict=True):
        to.copy_(tensor)
    graph.replay()
    for a, b in zip(captured, align(*fresh), strict=True):
        assert torch.equal(a, b)


def test_scores_of_several_texts_in_a_graph(device):
    def inputs(seed):
        logits, targets, input_lengths, target_lengths = batch(device, seed=seed)
        lengths = torch.stack([target_lengths, target_lengths.roll(1), target_lengths.clamp(max=0) - 1], 1)
        return logits, torch.stack([targets, targets.flip(1), targets], 1), input_lengths, lengths

    static = inputs(0)
    log_probability(*static)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = log_probability(*static)
    fresh = inputs(1)
    for to, tensor in zip(static, fresh, strict=True):
        to.copy_(tensor)
    graph.replay()
    assert torch.equal(captured, log_probability(*fresh))


def test_graph_capture_rejects_cpu_targets_and_lengths(device):
    logits, targets, input_lengths, target_lengths = batch(device)
    input_list, target_list = input_lengths.tolist(), target_lengths.tolist()
    greedy_decode(logits, input_lengths)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        with pytest.raises(ValueError, match="in a CUDA graph, targets and lengths must be on the GPU"):
            ctc_loss(logits, targets, input_lengths, target_list)
        with pytest.raises(ValueError, match="in a CUDA graph, targets and lengths must be on the GPU"):
            greedy_decode(logits, input_list)
        with pytest.raises(ValueError, match="in a CUDA graph, targets and lengths must be on the GPU"):
            beam_search(logits, input_list)
        with pytest.raises(ValueError, match="in a CUDA graph, targets and lengths must be on the GPU"):
            align(logits, targets, input_list, target_lengths)


def test_default_lengths_can_be_captured(device):
    logits = batch(device)[0]
    for decode in (greedy_decode, beam_search):
        decode(logits)
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            decode(logits)


@pytest.mark.parametrize("on_cpu", [(), (1, 2, 3), (2, 3), (1,), (3,)])
@pytest.mark.parametrize("validate", [None, False])
def test_operators_do_not_synchronize(device, on_cpu, validate):
    arguments = batch(device)
    arguments = [tensor.cpu() if i in on_cpu else tensor for i, tensor in enumerate(arguments)]
    loss = CTCLoss(validate=validate)
    logits = arguments[0].requires_grad_()
    ctc_loss(*arguments).backward()  # the first call may allocate
    with no_synchronization(device):
        loss(*arguments).backward()
        for call in CALLS.values():
            call(*arguments)
        log_probability(logits, arguments[1][:, None], arguments[2], arguments[3][:, None], validate=validate)


def test_per_sample_constraints_do_not_synchronize(device):
    charset = Charset("abcdefghijklmnopqrstuvwxyz 012345678")
    lexicons = [Lexicon.from_words([a + "a", a], charset, unknown_score=-1.0) for a in "bcd"]
    hotwords = [None, *(HotWords.from_words([word], charset) for word in ("ab", "c", "d"))]
    logits, _, lengths, _ = batch(device)
    options = {"lexicon": [*lexicons, None], "hotwords": hotwords}
    before = beam_search(logits, lengths, **options)  # copies the tables to the device
    with no_synchronization(device):
        again = beam_search(logits, lengths, **options)
    for a, b in zip(again, before, strict=True):
        assert torch.equal(a, b)


def test_cpu_values_are_checked(device):
    logits, targets, input_lengths, target_lengths = (tensor.cpu() for tensor in batch(device))
    logits = logits.to(device)
    with pytest.raises(ValueError, match=r"input_lengths\[0\] is 31, but logits has T=30 frames"):
        ctc_loss(logits, targets.to(device), input_lengths.clamp(min=31), target_lengths)
    with pytest.raises(ValueError, match=r"targets\[0, 0\] is 56, but logits has C=37 classes"):
        ctc_loss(logits, targets + 37, input_lengths, target_lengths.clamp(min=1))
    with pytest.raises(ValueError, match=r"input_lengths\[0\] is 31, but logits has T=30 frames"):
        greedy_decode(logits, input_lengths.clamp(min=31))
    with pytest.raises(ValueError, match=r"input_lengths\[0\] is 31, but logits has T=30 frames"):
        beam_search(logits, input_lengths.clamp(min=31))
    too_long = input_lengths.to(device).clamp(min=31)
    assert beam_search(logits, too_long).scores.isnan().all()
    with pytest.raises(ValueError, match=r"align: targets\[0, 0\] is 56, but logits has C=37 classes"):
        align(logits, targets + 37, input_lengths, target_lengths.clamp(min=1))
    texts, lengths = targets[:, None], torch.tensor([[8], [9], [-1], [0]])
    with pytest.raises(ValueError, match=r"log_probability: target_lengths\[1\] is 9, but targets has S=8"):
        log_probability(logits, texts, input_lengths, lengths)
    on_device = [tensor.to(device) for tensor in (targets + 37, input_lengths, target_lengths.clamp(min=1))]
    assert ctc_loss(logits, *on_device, reduction="none").isnan().all()
    with pytest.raises(ValueError, match=r"targets\[0, 0\] is \d+, but logits has C=37 classes"):
        ctc_loss(logits, *on_device, validate=True)


def test_compile_does_not_check_cpu_values(device):
    """A compiled graph copies CPU values to the GPU before any check could read them."""
    logits, targets, input_lengths, target_lengths = batch(device)
    too_long = input_lengths.cpu().clamp(min=31)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def results(logits, targets, lengths, target_lengths):
        return (
            ctc_loss(logits, targets, lengths, target_lengths, reduction="none"),
            log_probability(logits, targets[:, None], lengths, target_lengths[:, None]),
            greedy_decode(logits, lengths).scores,
            beam_search(logits, lengths).scores,
            align(logits, targets, lengths, target_lengths).scores,
        )

    for scores in results(logits, targets, too_long, target_lengths):
        assert scores.isnan().all()


def test_current_stream(device):
    """The operators run on the current stream, after the copy that fills the logits."""
    logits, *arguments = batch(device, frames=200, samples=16, classes=4000)
    expected, expected_gradient = loss_and_grad(logits, *arguments)
    expected_texts = beam_search(logits, arguments[1])
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.full_like(logits, float("nan"))
        torch.cuda._sleep(50_000_000)
        late.copy_(logits)
        texts = beam_search(late, arguments[1])
        losses, gradient = loss_and_grad(late, *arguments)
    assert torch.equal(losses, expected)
    assert torch.equal(gradient, expected_gradient)
    for a, b in zip(texts, expected_texts, strict=True):
        assert torch.equal(a, b)


def test_device_other_than_the_current_one(device):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    other = torch.device("cuda:1")
    for a, b in zip(loss_and_grad(*batch(other)), loss_and_grad(*batch(device)), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(beam_search(batch(other)[0]), beam_search(batch(device)[0]), strict=True):
        assert a.device == other
        torch.testing.assert_close(a.cpu(), b.cpu())
    assert torch.cuda.current_device() == 0


def test_more_rows_than_resident_threads(device):
    arguments = batch(device, frames=600, samples=700, classes=5)
    losses, gradient = loss_and_grad(*arguments, zero_infinity=True)
    expected = torch_loss_and_grad(*(tensor.cpu() for tensor in arguments), zero_infinity=True)
    torch.testing.assert_close(losses.double(), expected[0], rtol=2e-6, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected[1], rtol=0, atol=5e-6)
