"""Runs the Python blocks of the documentation in order, on small data."""

import ast
import doctest
import gzip
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from helpers.dataset_files import image_bytes, write_labels_dataset
from helpers.docs import blocks
from helpers.in_memory_lines import InMemoryLines
from helpers.paths import ROOT
from helpers.random_checkpoint import random_checkpoint
from reference.ngram import estimate_model

from crnn_ext.ocr import ErrorCounts, Recognizer, save_checkpoint
from crnn_ext.text import Charset

# Other tests run the blocks of these pages, which do not run in sequence.
NOT_SEQUENTIAL = {"docs/how-to/export.md"}
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if blocks(str(path.relative_to(ROOT))) and str(path.relative_to(ROOT)) not in NOT_SEQUENTIAL
)
TEXT = "the cat sat"
TEXTS = [TEXT, "the cat", "a cat sat", "new york"]
WORDS = ["a", "the", "cat", "sat", "new", "york"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def missing_packages(code):
    """The packages that the block imports and that are not installed."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return sorted(name for name in names if importlib.util.find_spec(name) is None)


def printed_comments(code):
    """The expected output, from the comment after every `print`; None if a `print` has no comment."""
    prints = re.findall(r"^print\(.*$", code, re.MULTILINE)
    comments = [line.partition(")  # ")[2] for line in prints]
    return "".join(f"{comment}\n" for comment in comments) if prints and all(comments) else None


def logits_of(classes):
    """(T, N, C) logits in which TEXT is the most probable text."""
    path = [index for character in TEXT for index in (classes.index(character), classes.index(""))]
    noise = torch.randn(len(path), 2, len(classes), generator=torch.Generator().manual_seed(0))
    return noise + 8.0 * torch.nn.functional.one_hot(torch.tensor(path), len(classes)).unsqueeze(1)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Creates the files that the blocks open, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_labels_dataset(Path("lines"), {f"{number}.png": text for number, text in enumerate(TEXTS)})
    Path("line.png").write_bytes(image_bytes(64, 32))
    save_checkpoint("model.safetensors", random_checkpoint())
    Path("run").mkdir()
    save_checkpoint("run/best.safetensors", random_checkpoint())
    for folder in (Path("digits"), Path("demo")):
        (folder / "held_out").mkdir(parents=True)
        (folder / "held_out" / "0000.png").write_bytes(image_bytes(64, 32))
    Path("demo/run").mkdir()
    save_checkpoint("demo/run/best.safetensors", random_checkpoint())
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
def process_group():
    """A process group of one process."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def variables(page):
    """The variables that the blocks of the page use without defining them."""
    charset = Charset(" " + LETTERS)
    logits = logits_of(["", *charset.characters])
    frames, samples, _ = logits.shape
    lengths = torch.tensor([frames] * samples)
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
    targets, target_lengths = charset.encode([TEXT, TEXT])
    return {
        "charset": charset,
        "logits": logits,
        "input_lengths": lengths,
        "targets": targets,
        "target_lengths": target_lengths,
        "texts": TEXTS,
        "words": WORDS,
    }


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PAGES for number in range(len(blocks(page)))]
)
def test_docs_block_runs_and_prints_its_comments(page, number, files, process_group, capsys):
    """Runs the earlier blocks of the page first. If the block sets `text`, it must be TEXT."""
    names = variables(page)
    *before, last = blocks(page)[: number + 1]
    if missing_packages(last):
        pytest.skip(f"not installed: {', '.join(missing_packages(last))}")
    for code in before:
        if not missing_packages(code):
            exec(compile(code, page, "exec"), names)
    names.pop("text", None)
    capsys.readouterr()
    exec(compile(last, page, "exec"), names)
    assert names.get("text", TEXT) == TEXT
    expected = printed_comments(last)
    if expected is not None:
        printed = capsys.readouterr().out
        assert doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS), printed


def test_docs_pages_have_code_blocks():
    assert all(blocks(page) for page in PAGES)


def test_docs_translated_readme_has_the_same_code():
    """Python blocks, commands and pictures."""

    def code(name):
        text = (ROOT / name).read_text()
        return blocks(name), re.findall(r"^    \S.*$|\]\(\S+?\.(?:svg|png)\)", text, re.MULTILINE)

    assert code("README.zh-CN.md") == code("README.md")
