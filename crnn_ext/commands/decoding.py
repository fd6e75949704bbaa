"""The options of commands that read: how texts are found."""

import argparse
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .messages import print_stderr

if TYPE_CHECKING:
    from crnn_ext.ocr import BeamSearch, Decoding
    from crnn_ext.text import Charset

T = TypeVar("T")

# What is said of an image for which there is no text.
NO_TEXT_FOUND = "the search has found no text of the lexicon; a larger --beam may"


def add_options(parser: argparse.ArgumentParser) -> Any:
    """Adds the options of beam search, and returns their group.

    `nbest`, which `from_options` needs too, is left to the command: not all have a use for more than one text.
    """
    beam = parser.add_argument_group(
        "beam search",
        "Without any of these options, the most probable class of each frame is read. With one, the most "
        "probable texts are searched for.",
    )
    beam.add_argument("--beam", type=int, metavar="B", help="prefixes that are kept (16)")
    beam.add_argument("--lm", metavar="FILE", help="an n-gram model, an ARPA file, plain or .gz")
    beam.add_argument(
        "--lm-units",
        choices=["characters", "words"],
        help="what the model is over (characters); words have to be in the lexicon",
    )
    beam.add_argument(
        "--lm-space",
        metavar="UNIT",
        help="what a model over characters calls the space, if that is not clear; <unk> if it has none",
    )
    beam.add_argument("--lm-weight", type=float, metavar="W", help="weight of the model (0.5)")
    beam.add_argument(
        "--lexicon",
        metavar="FILE",
        help="the words that may be read, one a line in UTF-8; spaces, and punctuation that is in no word, "
        "stand between words",
    )
    beam.add_argument(
        "--unknown-score",
        type=float,
        metavar="S",
        help="allows words that are not in the lexicon, and adds this to the score of a text for each; nats",
    )
    beam.add_argument(
        "--hotword", action="append", default=[], metavar="WORD", help="a word to prefer; may come many times"
    )
    beam.add_argument(
        "--hotword-weight",
        type=float,
        metavar="W",
        help="added for each character of a hot word (1); nats",
    )
    return beam


def from_options(arguments: argparse.Namespace, charset: "Charset") -> "Decoding":
    """The decoding that the options ask for.

    Raises:
        ValueError: an option breaks its rule, or a file is not what it should be.
        OSError: a file cannot be read.
    """
    import torch

    from crnn_ext.ocr import greedy

    if not _wants_beam_search(arguments):
        return greedy
    search = _beam_search(arguments, charset)
    # Options that break their rules show before any image is read.
    search(torch.zeros(0, 1, charset.num_classes), torch.tensor([0]), charset)
    return search


# Options of the search that say something of another one.
_PARTNERS = {
    "lm_units": "lm",
    "lm_space": "lm",
    "lm_weight": "lm",
    "unknown_score": "lexicon",
    "hotword_weight": "hotword",
}


def _wants_beam_search(arguments: argparse.Namespace) -> bool:
    for option, partner in _PARTNERS.items():
        if getattr(arguments, option) is not None and not getattr(arguments, partner):
            raise ValueError(f"--{option.replace('_', '-')} needs --{partner}")
    given = (arguments.beam, arguments.nbest, arguments.lm, arguments.lexicon)
    return bool(arguments.hotword) or any(option is not None for option in given)


def _beam_search(arguments: argparse.Namespace, charset: "Charset") -> "BeamSearch":
    from crnn_ext.ocr import BeamSearch
    from crnn_ext.text import HotWords, Lexicon, NGramModel

    words = [] if arguments.lexicon is None else _words(arguments.lexicon)
    separators = " " + "".join(_punctuation(charset.characters) - set().union(*words, *arguments.hotword))
    options: dict[str, Any] = {}
    if arguments.lexicon is not None:
        lexicon = options["lexicon"] = _named(
            f"--lexicon {arguments.lexicon}",
            Lexicon.from_words,
            words,
            charset,
            separators=separators,
            unknown_characters="skip",
            unknown_score=arguments.unknown_score,
        )
        if len(lexicon) < len(set(words)):
            print_stderr(
                f"{arguments.lexicon}: of {len(set(words))} words, {len(lexicon)} have only characters that "
                "the network reads; the others are left out"
            )
    if arguments.lm is not None:
        over_words = arguments.lm_units == "words"
        if over_words and arguments.lexicon is None:
            raise ValueError("--lm-units words needs --lexicon")
        options["lm"] = NGramModel.from_arpa(
            arguments.lm, options["lexicon"] if over_words else charset, space=arguments.lm_space
        )
    if arguments.hotword:
        options["hotwords"] = _named(
            "--hotword", HotWords.from_words, arguments.hotword, charset, separators=separators
        )
    for name, value in (
        ("beam_size", arguments.beam),
        ("nbest", arguments.nbest),
        ("lm_weight", arguments.lm_weight),
        ("hotword_weight", arguments.hotword_weight),
    ):
        if value is not None:
            options[name] = value
    return BeamSearch(**options)


def _named(option: str, make: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """What is made of an option's value; errors name the option."""
    try:
        return make(*arguments, **keywords)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _words(path: str) -> list[str]:
    """The words of a lexicon, in NFC as labels are."""
    from crnn_ext.ocr.system.atomic_write import add_filename_to_errors

    with open(path, encoding="utf-8-sig") as file, add_filename_to_errors(path):
        try:
            return [unicodedata.normalize("NFC", word) for line in file if (word := line.strip())]
        except UnicodeDecodeError:
            raise ValueError(f"{path}: a lexicon must be in UTF-8, and this file is not") from None


def _punctuation(characters: str) -> set[str]:
    return {character for character in characters if unicodedata.category(character).startswith("P")}
