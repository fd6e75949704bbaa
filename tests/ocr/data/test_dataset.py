"""Dataset and collate function: batches of preprocessed lines, with issues for unreadable images."""

import pytest
import torch
from helpers.dataset_files import write_labels_dataset
from torch.utils.data import DataLoader

from crnn_ext.ocr import Preprocessing
from crnn_ext.ocr.data import LineDataset, collate, open_lines


@pytest.fixture
def dataset(tmp_path):
    write_labels_dataset(tmp_path, {f"{number}.png": f"label {number}" for number in range(6)})
    return LineDataset(open_lines(tmp_path), Preprocessing())


def test_collate(dataset):
    batch = collate([dataset[5], dataset[0]])
    assert (batch.labels, batch.names) == (["label 5", "label 0"], ["5.png", "0.png"])
    assert batch.widths.tolist() == [72, 64]
    assert batch.images.shape == (2, 1, 32, 72)
    assert torch.equal(batch.images[0], dataset[5].image)
    assert torch.equal(batch.images[1, ..., :64], dataset[0].image)
    assert not batch.images[1, ..., 64:].any()
    assert batch.unreadable == []


@pytest.mark.parametrize("workers", [0, 2])
def test_collate_unreadable_images(dataset, tmp_path, workers):
    for name in ("1.png", "4.png", "5.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-30])
    loader = DataLoader(
        dataset, batch_sampler=[[0, 1], [2, 3], [4, 5]], num_workers=workers, collate_fn=collate
    )
    batches = list(loader)
    assert [batch.names for batch in batches] == [["0.png"], ["2.png", "3.png"], []]
    assert [[problem.name for problem in batch.unreadable] for batch in batches] == [
        ["1.png"],
        [],
        ["4.png", "5.png"],
    ]
    problem = batches[0].unreadable[0]
    assert (problem.kind, "truncated" in problem.detail) == ("unreadable image", True)
    assert batches[2].images.shape == (0, 1, 1, 0)
    assert batches[2].widths.tolist() == []
