"""Scratch memory of the operators on a GPU: it is bounded, and does not grow with the square of T."""

import itertools

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from crnn_ext.ctc import beam_search

ON_A_GPU = pytest.mark.parametrize("device", ["cuda_on_host", "cuda"], indirect=True)

# As kMaxScratchBytes in csrc/targets/slices.h.
MOST_SCRATCH = 2**28


def peak_of(call, device):
    """(peak number of bytes allocated during the call, its result)."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before, result
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        result = call()
    events = measured.profiler.kineto_results.events()
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(itertools.accumulate(sizes), default=0), result


def bytes_of(tensors):
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def scratch_of(call, device):
    peak, results = peak_of(call, device)
    return peak - bytes_of([results] if isinstance(results, torch.Tensor) else results)


# T, N, K: texts of T columns without frames or labels, so that the kernels have almost nothing to compute.
SHAPES = [(500, 4, 200), (2500, 2, 9), (3000, 12, 1)]


def empty_texts(device, frames, samples, texts):
    logits = torch.zeros((), device=device).expand(frames, samples, 5)
    targets = torch.zeros((), dtype=torch.int64, device=device).expand(samples * texts, frames)
    none = torch.zeros(samples * texts, dtype=torch.int64, device=device)
    return logits, targets, none[:samples], none


@ON_A_GPU
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scratch_memory_of_many_texts(device, shape, dtype):
    logits, *texts = empty_texts(device, *shape)
    logits = logits.to(dtype)
    log_probability = torch.ops.crnn_ext.log_probability.default
    align = torch.ops.crnn_ext.align.default
    assert scratch_of(lambda: log_probability(logits, *texts, 0, True, False), device) <= MOST_SCRATCH
    assert scratch_of(lambda: align(logits, *texts, 0, True), device) <= MOST_SCRATCH


@ON_A_GPU
def test_scratch_memory_of_loss_without_gradient(device):
    logits, *targets = empty_texts(device, 1500, 20, 1)

    def call():
        return torch.ops.crnn_ext.ctc_loss.default(logits, *targets, 0, 0, False, True, False, False)

    assert scratch_of(call, device) <= MOST_SCRATCH


@ON_A_GPU
def test_scratch_memory_of_beam_search(device):
    frames, samples, nbest = 1000, 2, 100
    logits = torch.zeros(frames, samples, 5, device=device)
    none = torch.zeros(samples, dtype=torch.int64, device=device)
    memory_of_search = 2**23
    scratch = scratch_of(
        lambda: beam_search(logits, none, beam_size=nbest, nbest=nbest, rescore=True), device
    )
    assert scratch <= MOST_SCRATCH + memory_of_search
