"""The command `crnn-ext`.

Each of its commands is a function that adds the parser and one that runs the command and returns the exit
status: 0; 1 if some of the inputs could not be used; 2 if nothing could be done.
"""

import argparse
import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crnn_ext.ocr import BeamSearch, Reading
    from crnn_ext.text import Charset

# Images that `read` holds in memory at a time: enough to find some of similar width, which are read together.
_IMAGES_AT_A_TIME = 256

# What would break a line, steer a terminal or be no character at all, such as a byte of a name not in UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `crnn-ext` with the arguments, or those of the process, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="crnn-ext", description="Text recognition with CTC and CRNN networks."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_read(commands)
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A text may have characters that the encoding of the output has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = arguments.run(arguments)
    except BrokenPipeError:
        # The program at the other end, such as head, wants no more. Python would say so again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _add_read(commands: Any) -> None:
    parser = commands.add_parser(
        "read",
        help="read the text in images",
        description="Reads the text in images that show one line of it, upright, as the network learnt to: "
        "for most, dark on light. Prints a line for each, in the order given: path, text and confidence, "
        "which is P(text | image), separated by tabs; control characters are written as in Python, a line "
        "break as \\n. Images that cannot be read are named on standard error, and the exit status is then "
        "1; it is 2 if the checkpoint cannot be used.",
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
    parser.set_defaults(run=_read)


def _read(arguments: argparse.Namespace) -> int:
    try:
        import torch

        from crnn_ext.ocr import CheckpointError, ImageError, Recognizer
    except ImportError as error:
        return _failure(str(error))
    try:
        recognizer = Recognizer.load(arguments.checkpoint)
        if _wants_beam_search(arguments):
            recognizer.decoding = _beam_search(arguments, recognizer.charset)
            # Options that break their rules show before any image is read.
            no_frames = torch.zeros(0, 1, recognizer.charset.num_classes)
            recognizer.decoding(no_frames, torch.tensor([0]), recognizer.charset)
    except (CheckpointError, ValueError, OSError) as error:
        return _failure(str(error))

    status = 0
    for first in range(0, len(arguments.images), _IMAGES_AT_A_TIME):
        paths, images = [], []
        for path in arguments.images[first : first + _IMAGES_AT_A_TIME]:
            try:
                images.append(recognizer.prepare(path))
                paths.append(path)
            except ImageError as error:
                _complain(f"{path}: {error}")
                status = 1
        try:
            readings = recognizer.read(images)
        except ValueError as error:
            return _failure(f"{arguments.checkpoint}: {error}")
        for path, reading in zip(paths, readings, strict=True):
            print(_json_line(path, reading) if arguments.json else _line(path, reading), flush=True)
    return status


def _line(path: str, reading: "Reading") -> str:
    texts = [(reading.text, reading.confidence), *reading.alternatives]
    columns = (f"{_printable(text)}\t{confidence:.4f}" for text, confidence in texts)
    return "\t".join([_printable(path), *columns])


def _json_line(path: str, reading: "Reading") -> str:
    lists = {
        "characters": [character._asdict() for character in reading.characters],
        "alternatives": [alternative._asdict() for alternative in reading.alternatives],
    }
    return json.dumps({"path": path, **reading._asdict(), **lists})


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
            _complain(
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


def _failure(message: str) -> int:
    _complain(message)
    return 2


def _complain(message: str) -> None:
    print(f"crnn-ext: {_printable(message)}", file=sys.stderr)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
