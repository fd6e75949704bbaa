"""`crnn-ext plot`: plots images with their posteriors and alignments."""

import argparse
import itertools
from typing import Any

from . import decoding, device, image_arguments, output
from . import parser as shared
from .errors import CommandError, catch_user_errors
from .messages import print_stderr


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "plot",
        parents=[shared.CHECKPOINT, shared.IMAGES, shared.DEVICE],
        allow_abbrev=False,
        help="plot images with their posteriors and alignments",
        description="Plots for each image: the image; the characters that were read, each at its frames in "
        "the most probable path of the text, as high as its probability there; the posteriors. Images that "
        "cannot be read, or in which the search finds no text of the lexicon, are named on standard error, "
        "and the exit status is then 1; it is 2 if nothing was plotted.",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help=f".png, .pdf or .svg file to write, {output.REPLACED_WHEN_COMPLETE}",
    )
    parser.add_argument("--text", help="align this text, not the text that was read; needs a single IMAGE")
    decoding.add_options(parser)
    parser.set_defaults(run=run, nbest=None)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    with catch_user_errors(RuntimeError):
        from crnn_ext.ocr import ImageError, Recognizer
        from crnn_ext.ocr.images import read_image
        from crnn_ext.ocr.reading.plot import MAX_IMAGES, plot_format, plot_readings
        from crnn_ext.ocr.system.tf32 import tf32_allowed

        plot_format(arguments.output)  # fails before anything is read
        recognizer = Recognizer.load(arguments.checkpoint, device=device.select(arguments.device))
        recognizer.decoding = decoding.from_options(arguments, recognizer.charset)
        found = image_arguments.find_images(arguments.images)
        files = [arguments.checkpoint, arguments.lm, arguments.lexicon, *found.list_files, *found.paths]
        output.check_writable(arguments.output, files)
    for problem in found.problems:
        print_stderr(problem)
    if len(found.paths) > MAX_IMAGES:
        raise CommandError(f"images must be at most {MAX_IMAGES}, got {len(found.paths)}")
    if arguments.text is not None and len(found.paths) != 1:
        raise CommandError(f"--text needs one image, got {len(found.paths)}")

    status = int(bool(found.problems))
    titles, images = [], []
    for path in found.paths:
        try:
            image = read_image(path, recognizer.preprocessing.mode)
            recognizer.preprocessing.columns(*image.size)  # raises if the image is too wide
        except ImageError as error:
            print_stderr(f"{path}: {error}")
            status = 1
            continue
        images.append(image)
        titles.append(path)
    if not images:
        raise CommandError("no images to plot")
    with catch_user_errors(), tf32_allowed(False):
        has_text = plot_readings(recognizer, images, arguments.output, titles=titles, text=arguments.text)
    for path in itertools.compress(titles, (not found for found in has_text)):
        print_stderr(f"{path}: {decoding.NO_TEXT_FOUND}")
        status = 1
    return status
