"""Batch sampler: batches of similar width within the budget, each line once over all ranks, resumable."""

import math
import pickle
from collections import Counter

import numpy as np
import pytest
from helpers.dataset_files import FRAKTUR, requires_fraktur
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from crnn_ext.ocr import Preprocessing
from crnn_ext.ocr.data import BucketBatchSampler, LineDataset, collate, measure_lines, open_lines

HEIGHT = 32
WIDTHS = st.lists(st.integers(0, 400), min_size=1, max_size=120).filter(any)
BUDGETS = st.integers(1, 40_000)
RANKS = st.integers(1, 9)


def batches_by_rank(widths, budget, world_size=1, epoch=3, seed=7):
    """Return the batches of each rank."""
    samplers = [
        BucketBatchSampler(widths, budget, height=HEIGHT, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@given(widths=WIDTHS, budget=BUDGETS, world_size=RANKS, seed=st.none() | st.integers(0, 5))
def test_sampler_yields_each_line_once(widths, budget, world_size, seed):
    batches = [batch for rank in batches_by_rank(widths, budget, world_size, seed=seed) for batch in rank]
    counts = Counter(index for batch in batches for index in batch)
    assert set(counts) == {index for index, width in enumerate(widths) if width}
    repeated = sum(counts.values()) - len(counts)
    if repeated:
        assert all(len(batch) == 1 for batch in batches), "a line is repeated although a batch holds several"
        assert repeated < world_size


@given(widths=WIDTHS, budget=BUDGETS, world_size=RANKS)
def test_sampler_equal_batch_counts_across_ranks(widths, budget, world_size):
    lengths = {
        len(rank) for epoch in (0, 1, 2) for rank in batches_by_rank(widths, budget, world_size, epoch)
    }
    sampler = BucketBatchSampler(widths, budget, height=HEIGHT, seed=7, world_size=world_size)
    assert lengths == {len(sampler)} == {sampler.batches_per_epoch}


@given(widths=WIDTHS, budget=BUDGETS, world_size=RANKS)
def test_sampler_respects_pixel_budget(widths, budget, world_size):
    for rank in batches_by_rank(widths, budget, world_size):
        for batch in rank:
            pixels = HEIGHT * len(batch) * max(widths[index] for index in batch)
            assert batch
            assert len(batch) == 1 or pixels <= budget


@given(widths=WIDTHS, budget=BUDGETS, world_size=RANKS, data=st.data())
def test_sampler_resumes_within_epoch(widths, budget, world_size, data):
    full = batches_by_rank(widths, budget, world_size, epoch=5)[world_size - 1]
    position = data.draw(st.integers(0, len(full)))
    sampler = BucketBatchSampler(
        widths, budget, height=HEIGHT, seed=7, rank=world_size - 1, world_size=world_size
    )
    sampler.set_epoch(5, position)
    assert list(sampler) == full[position:]
    assert len(sampler) == len(full) - position
    assert list(pickle.loads(pickle.dumps(sampler))) == full[position:]


@given(widths=WIDTHS, budget=BUDGETS)
def test_sampler_interleaves_ranks(widths, budget):
    """One step of several ranks equals that many steps of one rank, unless batches are split."""
    [alone] = batches_by_rank(widths, budget)
    assume(len(alone) % 2 == 0)
    first, second = batches_by_rank(widths, budget, world_size=2)
    assert [batch for pair in zip(first, second, strict=True) for batch in pair] == alone


def test_sampler_shuffles_by_epoch_and_seed():
    widths = np.random.default_rng(0).integers(50, 500, 300).tolist()
    drawn = [batches_by_rank(widths, 50_000, epoch=epoch, seed=seed) for epoch in (0, 1) for seed in (0, 1)]
    assert batches_by_rank(widths, 50_000, epoch=1, seed=0) == drawn[2]
    assert len({str(batches) for batches in drawn}) == 4
    together = [{frozenset(batch) for batch in batches[0]} for batches in drawn]
    assert len(together[0] & together[1]) < len(together[0]) / 10, "batches must change, not only their order"


def test_sampler_without_seed_sorts_by_width():
    [batches] = batches_by_rank([10, 40, 30, 20, 0], 32 * 80, seed=None)
    assert batches == [[1, 2], [3, 0]]


def test_sampler_padding_is_small():
    widths = np.random.default_rng(0).lognormal(6.5, 0.5, 4000).astype(int).tolist()
    [batches] = batches_by_rank(widths, 32 * 16 * 700)
    padded = sum(len(batch) * max(widths[index] for index in batch) for batch in batches)
    assert sum(widths) / padded > 0.93
    fill = [len(batch) * max(widths[index] for index in batch) / (16 * 700) for batch in batches]
    assert np.mean(fill) > 0.9


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"widths": []}, ValueError, "widths must be non-negative numbers, at least one of them positive"),
        ({"widths": [0, 0]}, ValueError, "widths must be"),
        ({"widths": [5, -1]}, ValueError, "widths must be"),
        ({"max_pixels": 0}, ValueError, r"max_pixels must be in \[1, .*\], got 0"),
        ({"max_pixels": 1e6}, TypeError, "max_pixels must be an int, got float"),
        ({"height": 0}, ValueError, "height must be in"),
        ({"seed": -1}, ValueError, "seed must be in"),
        ({"rank": 2, "world_size": 2}, ValueError, r"rank must be in \[0, 1\], got 2"),
        ({"world_size": 0}, ValueError, "world_size must be in"),
    ],
)
def test_sampler_rejects_arguments(arguments, error, message):
    with pytest.raises(error, match=f"BucketBatchSampler: {message}"):
        BucketBatchSampler(**{"widths": [5, 6], "max_pixels": 1000, "height": 32, "seed": 0, **arguments})


def test_set_epoch_rejects_arguments():
    sampler = BucketBatchSampler([5, 6], 1000, height=32, seed=0)
    with pytest.raises(ValueError, match=r"position must be in \[0, 1\], got 2"):
        sampler.set_epoch(0, 2)
    with pytest.raises(ValueError, match=r"epoch must be in \[0, .*, got -1"):
        sampler.set_epoch(-1)


@requires_fraktur
def test_sampler_epoch_fraktur():
    source = open_lines(FRAKTUR / "labels_val.txt")
    preprocessing = Preprocessing()
    columns = [preprocessing.columns(size.width, size.height) for size in measure_lines(source)]
    sampler = BucketBatchSampler(columns, 16 * 32 * 700, height=32, seed=0)
    loader = DataLoader(
        LineDataset(source, preprocessing), batch_sampler=sampler, num_workers=2, collate_fn=collate
    )
    names = []
    for batch in loader:
        assert batch.images.numel() <= 16 * 32 * 700
        assert batch.widths.tolist() == [columns[source.names.index(name)] for name in batch.names]
        names += batch.names
    assert sorted(names) == sorted(source.names)
    assert len(source) == 260
    assert len(sampler) <= math.ceil(1.15 * sum(columns) / (16 * 700))
