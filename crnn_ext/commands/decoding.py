"""Decoding options of the commands that read."""

import argparse
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .messages import print_stderr

if TYPE_CHECKING:
    from crnn_ext.ocr import BeamSearch, Decoding
    from crnn_ext.text import Charset

T = TypeVar("T")

NO_TEXT_FOUND = "the search found no text of the lexicon; try a larger --beam"


def add_options(parser: argparse.ArgumentParser) -> Any:
    """Adds the options of beam search and returns their group.

    `from_options` also needs `nbest`, which the command adds: not every command can use several texts.
    """
    beam = parser.add_argument_group(
        "beam search",
        "Any of these options turns on beam search. The default is greedy decoding: the most probable class "
        "of each frame.",
    )
    beam.add_argument("--beam", type=int, metavar="B", help="number of prefixes kept after each frame (16)")
    beam.add_argument("--lm", metavar="FILE", help="n-gram model: an ARPA file, plain or gzipped")
    beam.add_argument(
        "--lm-units",
        choices=["characters", "words"],
        help="units of the model (characters); words must be in the lexicon",
    )
    beam.add_argument(
        "--lm-space",
        metavar="UNIT",
        help="space of a character model, if ambiguous; <unk> for a model without spaces",
    )
    beam.add_argument(
        "--lm-weight", type=float, metavar="W", help="factor on the model's log-probabilities (0.5)"
    )
    beam.add_argument(
        "--lexicon",
        metavar="FILE",
        help="allowed words, one per line, UTF-8; spaces, and punctuation that is in no word, separate words",
    )
    beam.add_argument(
        "--unknown-score",
        type=float,
        metavar="S",
        help="allow other words; add S nats to the score for each",
    )
    beam.add_argument(
        "--hotword",
        action="append",
        default=[],
        metavar="WORD",
        help="preferred word; may be repeated",
    )
    beam.add_argument(
        "--hotword-weight",
        type=float,
        metavar="W",
        help="nats added for each character of a hot word (1)",
    )
    return beam


def from_options(arguments: argparse.Namespace, charset: "Charset") -> "Decoding":
    """The decoding that the options select.

    Raises:
        ValueError: an option is invalid, or a file is malformed.
        OSError: a file cannot be read.
    """
    from crnn_ext.ocr import greedy

    return _beam_search(arguments, charset) if _wants_beam_search(arguments) else greedy


# Options that modify another option.
_REQUIRED = {
    "lm_units": "lm",
    "lm_space": "lm",
    "lm_weight": "lm",
    "unknown_score": "lexicon",
    "hotword_weight": "hotword",
}


def _wants_beam_search(arguments: argparse.Namespace) -> bool:
    for option, required in _REQUIRED.items():
        if getattr(arguments, option) is not None and not getattr(arguments, required):
            raise ValueError(f"--{option.replace('_', '-')} needs --{required}")
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
                f"{arguments.lexicon}: ignored {len(set(words)) - len(lexicon)} of {len(set(words))} words: "
                "the network lacks some of their characters"
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
    return BeamSearch(charset, **options)


def _named(option: str, make: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Calls `make`; its errors name the option."""
    try:
        return make(*arguments, **keywords)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _words(path: str) -> list[str]:
    """The words of a lexicon file, in NFC like labels."""
    from crnn_ext.ocr.system.atomic_write import add_filename_to_errors

    with open(path, encoding="utf-8-sig") as file, add_filename_to_errors(path):
        try:
            return [unicodedata.normalize("NFC", word) for line in file if (word := line.strip())]
        except UnicodeDecodeError:
            raise ValueError(f"{path}: a lexicon file must be UTF-8") from None


def _punctuation(characters: str) -> set[str]:
    return {character for character in characters if unicodedata.category(character).startswith("P")}
