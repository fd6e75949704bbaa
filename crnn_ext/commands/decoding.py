"""The options of commands that read: how texts are found."""

import argparse
import unicodedata
from typing import TYPE_CHECKING, Any

from .messages import complain

if TYPE_CHECKING:
    from crnn_ext.ocr import BeamSearch, Decoding
    from crnn_ext.text import Charset


def add_options(parser: argparse.ArgumentParser) -> Any:
    """Adds the options of beam search, and returns their group.

    `nbest`, which `chosen` needs too, is left to the command: not all have a use for more than one text.
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
        default="characters",
        help="what the model is over (characters); words have to be in the lexicon",
    )
    beam.add_argument("--lm-weight", type=float, default=0.5, metavar="W", help="weight of the model (0.5)")
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
        default=1.0,
        metavar="W",
        help="added for each character of a hot word (1); nats",
    )
    return beam


def chosen(arguments: argparse.Namespace, charset: "Charset") -> "Decoding":
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
    search(torch.zeros(0, 1, charset.num_classes), charset)
    return search


def _wants_beam_search(arguments: argparse.Namespace) -> bool:
    given = (arguments.beam, arguments.nbest, arguments.lm, arguments.lexicon)
    return bool(arguments.hotword) or any(option is not None for option in given)


def _beam_search(arguments: argparse.Namespace, charset: "Charset") -> "BeamSearch":
    from crnn_ext.ocr import BeamSearch
    from crnn_ext.text import HotWords, Lexicon, NGramModel

    words = [] if arguments.lexicon is None else _words(arguments.lexicon)
    separators = " " + "".join(_punctuation(charset.characters) - set().union(*words, *arguments.hotword))
    lexicon, lm, hotwords = None, None, None
    if arguments.lexicon is not None:
        lexicon = Lexicon.from_words(
            words,
            charset,
            separators=separators,
            unknown_characters="skip",
            unknown_score=arguments.unknown_score,
        )
        if len(lexicon) < len(set(words)):
            complain(
                f"{arguments.lexicon}: of {len(set(words))} words, {len(lexicon)} have only characters that "
                "the network reads; the others are left out"
            )
    if arguments.lm is not None:
        if arguments.lm_units == "words" and lexicon is None:
            raise ValueError("--lm-units words needs --lexicon")
        lm = NGramModel.from_arpa(
            arguments.lm, lexicon if lexicon is not None and arguments.lm_units == "words" else charset
        )
    if arguments.hotword:
        hotwords = HotWords.from_words(arguments.hotword, charset, separators=separators)
    return BeamSearch(
        beam_size=16 if arguments.beam is None else arguments.beam,
        nbest=1 if arguments.nbest is None else arguments.nbest,
        lm=lm,
        lm_weight=arguments.lm_weight,
        lexicon=lexicon,
        hotwords=hotwords,
        hotword_weight=arguments.hotword_weight,
    )


def _words(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        try:
            return [word for line in file if (word := line.strip())]
        except UnicodeDecodeError:
            raise ValueError(f"{path}: a lexicon must be in UTF-8, and this file is not") from None


def _punctuation(characters: str) -> set[str]:
    return {character for character in characters if unicodedata.category(character).startswith("P")}
