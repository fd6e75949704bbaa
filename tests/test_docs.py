"""The Python of the documentation runs, on small data, as a reader would run it: block after block."""

import ast
import gzip
import importlib.util
from pathlib import Path

import pytest
import torch
from helpers.dataset_files import image_bytes, write_labels_dataset
from helpers.docs import blocks
from helpers.in_memory_lines import InMemoryLines
from helpers.random_checkpoint import random_checkpoint
from reference.ngram import estimate_model

from crnn_ext.ocr import ErrorCounts, Recognizer, save_checkpoint
from crnn_ext.text import Charset

PAGES = [
    "README.md",
    "docs/explanation/alignment.md",
    "docs/explanation/beam-search.md",
    "docs/how-to/import-and-export.md",
    "docs/explanation/confidence.md",
    "docs/how-to/prepare-data.md",
    "docs/how-to/decode.md",
    "docs/how-to/evaluate.md",
    "docs/how-to/migrate.md",
    "docs/how-to/read.md",
    "docs/how-to/train.md",
    "docs/get-started/tutorial.md",
]
TEXT = "the cat sat"
TEXTS = [TEXT, "the cat", "a cat sat", "new york"]
WORDS = ["a", "the", "cat", "sat", "new", "york"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def missing_packages(code):
    """Those that the block imports and that are not installed."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return sorted(name for name in names if importlib.util.find_spec(name) is None)


def logits_of(classes):
    """(T, N, C) of a network that is rather sure of TEXT."""
    path = [index for character in TEXT for index in (classes.index(character), classes.index(""))]
    noise = torch.randn(len(path), 2, len(classes), generator=torch.Generator().manual_seed(0))
    return noise + 8.0 * torch.nn.functional.one_hot(torch.tensor(path), len(classes)).unsqueeze(1)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What the blocks open, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_labels_dataset(Path("lines"), {f"{number}.png": text for number, text in enumerate(TEXTS)})
    Path("line.png").write_bytes(image_bytes(64, 32))
    save_checkpoint("model.safetensors", random_checkpoint())
    Path("run").mkdir()
    save_checkpoint("run/best.safetensors", random_checkpoint())
    Path("digits/held_out").mkdir(parents=True)
    Path("digits/held_out/0000.png").write_bytes(image_bytes(64, 32))
    Path("tokens.txt").write_text("".join(f"{token}\n" for token in ["-", "|", *LETTERS]))
    Path("lexicon.txt").write_text("".join(f"{word} {' '.join(word)} |\n" for word in WORDS))
    Path("words.arpa").write_text(estimate_model(2, [text.split() for text in TEXTS]).arpa())
    characters = estimate_model(3, [text.replace(" ", "_") for text in TEXTS]).arpa().replace("_", "<space>")
    Path("characters.arpa.gz").write_bytes(gzip.compress(characters.encode()))
    checkpoint = random_checkpoint()
    save_checkpoint("model.safetensors", checkpoint)
    torch.save(checkpoint.network.state_dict(), "model.pth")
    Path("characters.txt").write_text("\n".join(checkpoint.charset.characters))


@pytest.fixture
def group():
    """Of one process."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def given(page):
    """The names that its blocks take for granted."""
    charset = Charset(" " + LETTERS)
    logits = logits_of(["", *charset.characters])
    frames, samples, _ = logits.shape
    lengths = torch.tensor([frames] * samples)
    if page == "README.md":
        images = torch.rand(2, 1, 32, 100, generator=torch.Generator().manual_seed(0))
        batch = (images, torch.tensor([100, 70]), torch.randint(1, 37, (2, 5)), torch.tensor([5, 3]))
        return {"loader": [batch]}
    if page == "docs/explanation/alignment.md":
        targets, target_lengths = charset.encode([TEXT, TEXT])
        texts, text_lengths = targets.unsqueeze(1), target_lengths.unsqueeze(1)
        return {
            "torch": torch,
            "logits": logits,
            "input_lengths": lengths,
            "targets": targets,
            "target_lengths": target_lengths,
            "texts": texts,
            "text_lengths": text_lengths,
            "candidates": texts,
            "frames": lengths,
            "lengths": text_lengths,
        }
    if page in ("docs/explanation/confidence.md", "docs/how-to/evaluate.md"):
        checkpoint = random_checkpoint()
        image = torch.randint(256, (32, 64), generator=torch.Generator().manual_seed(0)).byte().numpy()
        return {
            "recognizer": Recognizer(checkpoint.network, checkpoint.charset, checkpoint.preprocessing),
            "image": image,
            "lines": InMemoryLines([("name", image, "abc")]),
            "counts": ErrorCounts.from_pairs([("abc", "ab")]),
        }
    if page == "docs/how-to/migrate.md":
        labels = [" ", *LETTERS, ""]
        return {
            "emissions": logits.transpose(0, 1).contiguous(),
            "lengths": lengths,
            "labels": labels,
            "words": WORDS,
            "logits": logits_of(labels)[:, 0].numpy(),
        }
    return {
        "charset": charset,
        "logits": logits,
        "input_lengths": lengths,
        "texts": TEXTS,
        "words": WORDS,
    }


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PAGES for number in range(len(blocks(page)))]
)
def test_a_block(page, number, files, group):
    """Behind those before it. What a block calls `text` is what the network saw."""
    names = given(page)
    *before, last = blocks(page)[: number + 1]
    if missing_packages(last):
        pytest.skip(f"not installed: {', '.join(missing_packages(last))}")
    for code in before:
        if not missing_packages(code):
            exec(compile(code, page, "exec"), names)
    names.pop("text", None)
    exec(compile(last, page, "exec"), names)
    assert names.get("text", TEXT) == TEXT


def test_pages_have_blocks():
    assert all(blocks(page) for page in PAGES)
