"""`crnn-ext read`: the text in images."""

import argparse
import json
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .messages import complain, failure, printable

if TYPE_CHECKING:
    from crnn_ext.ocr import BeamSearch, Reading
    from crnn_ext.text import Charset

Made = TypeVar("Made")

# Images that `read` holds in memory at a time: enough to find some of equal width, which are read together.
_IMAGES_AT_A_TIME = 256


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "read",
        allow_abbrev=False,
        help="read the text in images",
        description="Reads the text in images that show one line of it, upright, as the network learnt to: "
        "for most, dark on light. Prints a line for each, in the order given: path, text and confidence, "
        "which is P(text | image), separated by tabs; control characters are written as in Python, a line "
        "break as \\n. Images that cannot be read, or in which the search finds no text of the lexicon, are "
        "named on standard error, and the exit status is then 1; it is 2 if the checkpoint cannot be used.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file written by crnn_ext")
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="a PNG, JPEG, WebP, TIFF, BMP or GIF file of up to 89 million pixels",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON objects, one a line: path, text, confidence, characters with the pixel columns "
        "[start, end) at which they were read, and alternatives, with text and confidence",
    )
    beam = parser.add_argument_group(
        "beam search",
        "Without any of these options, the most probable class of each frame is read. With one, the most "
        "probable texts are searched for.",
    )
    beam.add_argument("--beam", type=int, metavar="B", help="prefixes that are kept (16)")
    beam.add_argument(
        "--nbest",
        type=int,
        metavar="K",
        help="texts for each image (1): text and confidence of each in a line",
    )
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    try:
        import torch

        from crnn_ext.ocr import CheckpointError, ImageError, Recognizer
    except ImportError as error:
        return failure(str(error))
    try:
        recognizer = Recognizer.load(arguments.checkpoint)
        if _wants_beam_search(arguments):
            recognizer.decoding = _beam_search(arguments, recognizer.charset)
            # Options that break their rules show before any image is read.
            recognizer.decoding(torch.zeros(0, 1, recognizer.charset.num_classes), recognizer.charset)
    except OSError as error:
        return failure(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (CheckpointError, ValueError) as error:
        return failure(str(error))

    status = 0
    for first in range(0, len(arguments.images), _IMAGES_AT_A_TIME):
        paths, images = [], []
        for path in arguments.images[first : first + _IMAGES_AT_A_TIME]:
            try:
                images.append(recognizer.prepare(path))
                paths.append(path)
            except ImageError as error:
                complain(f"{path}: {error}")
                status = 1
        try:
            readings = recognizer.read(images)
        except ValueError as error:
            return failure(f"{arguments.checkpoint}: {error}")
        for path, reading in zip(paths, readings, strict=True):
            if arguments.lexicon is not None and not reading.text and reading.confidence == 0:
                complain(f"{path}: the search has found no text of the lexicon; a larger --beam may")
                status = 1
            print(_json_line(path, reading) if arguments.json else _line(path, reading), flush=True)
    return status


def _line(path: str, reading: "Reading") -> str:
    texts = [(reading.text, reading.confidence), *reading.alternatives]
    columns = (f"{printable(text)}\t{confidence:.4f}" for text, confidence in texts)
    return "\t".join([printable(path), *columns])


def _json_line(path: str, reading: "Reading") -> str:
    lists = {
        "characters": [character._asdict() for character in reading.characters],
        "alternatives": [alternative._asdict() for alternative in reading.alternatives],
    }
    return json.dumps({"path": path, **reading._asdict(), **lists})


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
            complain(
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


def _named(option: str, make: Callable[..., Made], *arguments: Any, **keywords: Any) -> Made:
    """What is made of an option's value; errors name the option."""
    try:
        return make(*arguments, **keywords)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _words(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        try:
            return [word for line in file if (word := line.strip())]
        except UnicodeDecodeError:
            raise ValueError(f"{path}: a lexicon must be in UTF-8, and this file is not") from None


def _punctuation(characters: str) -> set[str]:
    return {character for character in characters if unicodedata.category(character).startswith("P")}
