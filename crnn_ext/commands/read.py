"""`crnn-ext read`: reads the text in images."""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from crnn_ext._formatting import printable

from . import decoding, device, image_arguments, output
from . import parser as shared
from .distributed import run_distributed
from .errors import CommandError, catch_user_errors
from .messages import print_stderr, throughput

if TYPE_CHECKING:
    from crnn_ext.ocr import Reading
    from crnn_ext.ocr.system.distributed import ProcessGroup


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "read",
        parents=[shared.CHECKPOINT, shared.IMAGES, shared.DEVICE],
        allow_abbrev=False,
        help="read the text in images",
        description="Reads images of one line of text, upright and, for most networks, dark on light, like "
        "the training images. Prints a line for each image in the order given: path, text and confidence, "
        "which is P(text | image), separated by tabs. Control characters are escaped as in Python, a line "
        "break as \\n. With --json, each character has its pixel columns [start, end) and confidence, and "
        "found is false if the search finds no text of the lexicon. With -o, lines are first written to "
        "x.0-of-1.tsv for x.tsv, which is kept if the command is interrupted. Images that cannot be read, "
        "or in which the search finds no text of the lexicon, and arguments that name no images are "
        "reported on standard error, and the exit status is then 1; it is 2 if the checkpoint cannot be "
        "used or nothing could be read. Under torchrun the processes share the images.",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"write to FILE, not to standard output; {output.REPLACED_WHEN_COMPLETE}",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--spans",
        action="store_true",
        help="append the pixel columns [start, end) of each character, such as 4-12 16-20",
    )
    form.add_argument(
        "--json",
        action="store_true",
        help="write JSON Lines: path, text, confidence, characters, alternatives, found",
    )
    beam = decoding.add_options(parser)
    beam.add_argument(
        "--nbest",
        type=int,
        metavar="K",
        help="texts per image, each with its confidence, on one line (1)",
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
        raise CommandError("-o FILE is required with several processes")
    with catch_user_errors(RuntimeError):
        recognizer = Recognizer.load(arguments.checkpoint, device=device.select(arguments.device, group))
        recognizer.decoding = decoding.from_options(arguments, recognizer.charset)
        # On rank 0 only: it alone has the standard input, and folders may change in the meantime.
        found = group.broadcast_from_rank0(lambda: image_arguments.find_images(arguments.images))
        if arguments.output is not None:
            files = [arguments.checkpoint, arguments.lm, arguments.lexicon, *found.list_files, *found.paths]
            output.check_writable(arguments.output, files)
    if group.rank == 0:
        for problem in found.problems:
            print_stderr(problem)
    if not found.paths:
        if group.rank == 0:
            raise CommandError("no images to read")
        return 2

    status, images = int(bool(found.problems)), 0
    start = time.perf_counter()
    shard = group.shard(range(len(found.paths)))
    # On a terminal the printed lines show the progress.
    hide_bar = group.rank > 0 or (arguments.output is None and sys.stdout.isatty())
    try:
        with ExitStack() as stack:
            stack.enter_context(tf32_allowed(False))
            file = None
            if arguments.output is not None:
                file = stack.enter_context(output.ShardedFile(arguments.output, group))
            stream = recognizer.stream(shard, found.paths.__getitem__)
            for index, reading in tqdm(stream, total=len(shard), unit="image", disable=hide_bar or None):
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
            gathered = group.all_gather((status, images))
            images = sum(images for _, images in gathered)
            if file is not None and images:
                file.merge()
    except ValueError as error:
        raise CommandError(f"{arguments.checkpoint}: {error}") from error
    if images == 0:
        return 2
    if group.rank == 0:
        print(throughput(images, "image", time.perf_counter() - start), file=sys.stderr)
    return max(status for status, _ in gathered)


def _report_image(message: str) -> int:
    """Prints a message about an image above the progress bar and returns the exit status 1."""
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
