"""The Python of the documentation runs, on small data, as a reader would run it: block after block."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from reference.ngram import estimated

from crnn_ext.text import Charset

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["beam_search.md", "migrating.md"]
TEXT = "the cat sat"
TEXTS = [TEXT, "the cat", "a cat sat"]
WORDS = ["a", "the", "cat", "sat"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


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
def given(tmp_path, monkeypatch):
    """The names that blocks take for granted, in a folder with the files that they open."""
    monkeypatch.chdir(tmp_path)
    tokens = ["-", "|", *LETTERS]
    Path("tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    Path("lexicon.txt").write_text("".join(f"{word} {' '.join(word)} |\n" for word in WORDS))
    Path("words.arpa").write_text(estimated(2, [text.split() for text in TEXTS]).arpa())
    charset = Charset(" " + LETTERS)
    logits = logits_of(["", *charset.characters])
    labels = [" ", *LETTERS, ""]
    return {
        "beam_search.md": {
            "charset": charset,
            "words": WORDS,
            "logits": logits,
            "input_lengths": torch.tensor([len(logits)] * 2),
        },
        "migrating.md": {
            "emissions": logits.transpose(0, 1).contiguous(),
            "lengths": torch.tensor([len(logits)] * 2),
            "labels": labels,
            "words": WORDS,
            "logits": logits_of(labels)[:, 0].numpy(),
        },
    }


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PAGES for number in range(len(blocks(page)))]
)
def test_a_block(page, number, given):
    """Behind those before it; whatever a block reads, it reads what the network saw."""
    names = given[page]
    *before, last = blocks(page)[: number + 1]
    if missing_packages(last):
        pytest.skip(f"not installed: {', '.join(missing_packages(last))}")
    for code in before:
        if not missing_packages(code):
            exec(compile(code, page, "exec"), names)
    for result in ("text", "texts"):
        names.pop(result, None)
    exec(compile(last, page, "exec"), names)
    if "text" in names:
        assert names["text"] == TEXT
    if "texts" in names:
        assert names["texts"][0] == TEXT


def test_pages_have_blocks():
    assert all(blocks(page) for page in PAGES)
