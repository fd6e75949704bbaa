"""`crnn-ext read`: the text in images."""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from crnn_ext._formatting import printable

from . import decoding, device, inputs, output
from .distributed import run_distributed
from .messages import describe_error, fail, print_stderr, throughput

if TYPE_CHECKING:
    from crnn_ext.ocr import Reading
    from crnn_ext.ocr.system.distributed import ProcessGroup


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "read",
        allow_abbrev=False,
        help="read the text in images",
        description="Reads the text in images that show one line of it, upright, as the network learnt to: "
        "for most, dark on light. Gives a line for each, in the order given: path, text and confidence, "
        "which is P(text | image), separated by tabs; control characters are written as in Python, a line "
        "break as \\n. Images that cannot be read, or in which the search finds no text of the lexicon, are "
        "named on standard error, as is what stands for no image, and the exit status is then 1; it is 2 if "
        "the checkpoint cannot be used or nothing could be read. Under torchrun each process reads a "
        "share.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file written by crnn_ext")
    inputs.add_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"write the lines to this file, and not to standard output; {output.REPLACED_WHEN_COMPLETE}; until then lines "
        "are in a file beside it, x.0-of-1.tsv for x.tsv, where they stay if the command is interrupted",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--spans",
        action="store_true",
        help="end each line with the pixel columns [start, end) at which the characters of the text were "
        "read, as in 4-12 16-20",
    )
    form.add_argument(
        "--json",
        action="store_true",
        help="write JSON objects, one a line: path, text, confidence, characters with the pixel columns "
        "[start, end) at which they were read and the confidence of each, alternatives, with text and "
        "confidence, and found, which is false if the search finds no text of the lexicon",
    )
    device.add_option(parser)
    beam = decoding.add_options(parser)
    beam.add_argument(
        "--nbest",
        type=int,
        metavar="K",
        help="texts for each image (1): text and confidence of each in a line",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    return run_distributed(_read, arguments)


def _read(arguments: argparse.Namespace, group: "ProcessGroup") -> int:
    from tqdm import tqdm

    from crnn_ext.ocr import ImageError, Recognizer
    from crnn_ext.ocr.system.tf32 import tf32_allowed

    if group.world_size > 1 and arguments.output is None:
        return fail("several processes need -o FILE, in which their lines are joined")
    try:
        recognizer = Recognizer.load(arguments.checkpoint, device=device.select(arguments.device, group))
        recognizer.decoding = decoding.from_options(arguments, recognizer.charset)
        # One process looks, as there is one standard input, and folders may change.
        found = group.broadcast_from_rank0(lambda: inputs.find_images(arguments.images))
        if arguments.output is not None:
            read = [arguments.checkpoint, arguments.lm, arguments.lexicon, *found.list_files, *found.paths]
            output.check_writable(arguments.output, read)
    except (OSError, ValueError, RuntimeError) as error:
        return fail(describe_error(error))
    if group.rank == 0:
        for problem in found.problems:
            print_stderr(problem)
    if not found.paths:
        return fail("there is nothing to read") if group.rank == 0 else 2

    status, images = int(bool(found.problems)), 0
    started = time.perf_counter()
    share = group.shard(range(len(found.paths)))
    # On a terminal the lines themselves show how far it is.
    hidden = group.rank > 0 or (arguments.output is None and sys.stdout.isatty())
    try:
        with ExitStack() as stack:
            stack.enter_context(tf32_allowed(False))
            file = None
            if arguments.output is not None:
                file = stack.enter_context(output.ShardedFile(arguments.output, group))
            stream = recognizer.stream(share, found.paths.__getitem__)
            for index, reading in tqdm(stream, total=len(share), unit="image", disable=hidden or None):
                path = found.paths[index]
                if isinstance(reading, ImageError):
                    status = _report_image(f"{path}: {reading}")
                    continue
                images += 1
                if not reading.found:
                    status = _report_image(f"{path}: {decoding.NO_TEXT_FOUND}")
                line = _json_line(path, reading) if arguments.json else _line(path, reading, arguments.spans)
                if file is None:
                    print(line, flush=True)
                else:
                    file.write(index, line)
            parts = group.all_gather((status, images))
            images = sum(images for _, images in parts)
            if file is not None and images:
                file.merge()
    except ValueError as error:
        return fail(f"{arguments.checkpoint}: {error}")
    if images == 0:
        return 2
    if group.rank == 0:
        print(throughput(images, "image", time.perf_counter() - started), file=sys.stderr)
    return max(status for status, _ in parts)


def _report_image(message: str) -> int:
    """Says above the progress bar what is wrong with an image, and returns the exit status for it."""
    from tqdm import tqdm

    with tqdm.external_write_mode(sys.stderr):
        print_stderr(message)
    return 1


def _line(path: str, reading: "Reading", with_spans: bool) -> str:
    texts = [(reading.text, reading.confidence), *reading.alternatives]
    columns = [f"{printable(text)}\t{confidence:.4g}" for text, confidence in texts]
    spans = " ".join(f"{character.start}-{character.end}" for character in reading.characters)
    return "\t".join([printable(path), *columns, *([spans] if with_spans else [])])


def _json_line(path: str, reading: "Reading") -> str:
    lists = {
        "characters": [character._asdict() for character in reading.characters],
        "alternatives": [alternative._asdict() for alternative in reading.alternatives],
    }
    return json.dumps({"path": path, **reading._asdict(), **lists})
