"""`crnn-ext plot`: what a network makes of images, as a picture."""

import argparse
import itertools
from typing import Any

from . import decoding, device, inputs, output
from .messages import describe_error, fail, print_stderr


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "plot",
        allow_abbrev=False,
        help="draw images with their posteriors and alignments",
        description="Draws for each image: the image; the characters that were read, each at its frames in "
        "the most probable path of the text, as high as its probability there; and the posteriors. "
        "Images that cannot be read, or in which the search finds no text of the lexicon, are named on "
        "standard error, and the exit status is then 1; it is 2 if nothing was drawn.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file written by crnn_ext")
    inputs.add_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help=f"the picture: .png, .pdf or .svg; {output.REPLACED_WHEN_COMPLETE}",
    )
    parser.add_argument(
        "--text", help="align this text with the image, which must be one, and not what was read"
    )
    device.add_option(parser)
    decoding.add_options(parser)
    parser.set_defaults(run=run, nbest=None)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    try:
        from crnn_ext.ocr import ImageError, Recognizer
        from crnn_ext.ocr.images import read_image
        from crnn_ext.ocr.reading.plot import MAX_IMAGES, plot_format, plot_readings
        from crnn_ext.ocr.system.tf32 import tf32_allowed
    except ImportError as error:
        return fail(str(error))
    try:
        plot_format(arguments.output)  # before anything is read
        recognizer = Recognizer.load(arguments.checkpoint, device=device.select(arguments.device))
        recognizer.decoding = decoding.from_options(arguments, recognizer.charset)
        found = inputs.find_images(arguments.images)
        read = [arguments.checkpoint, arguments.lm, arguments.lexicon, *found.list_files, *found.paths]
        output.check_writable(arguments.output, read)
    except (OSError, ValueError, RuntimeError) as error:
        return fail(describe_error(error))
    for problem in found.problems:
        print_stderr(problem)
    if len(found.paths) > MAX_IMAGES:
        return fail(f"a picture has room for {MAX_IMAGES} images, and these are {len(found.paths)}")
    if arguments.text is not None and len(found.paths) != 1:
        return fail(f"--text needs one image, and these are {len(found.paths)}")

    status = int(bool(found.problems))
    titles, images = [], []
    for path in found.paths:
        try:
            image = read_image(path, recognizer.preprocessing.mode)
            recognizer.preprocessing.columns(*image.size)  # which may be too many
        except ImageError as error:
            print_stderr(f"{path}: {error}")
            status = 1
            continue
        images.append(image)
        titles.append(path)
    if not images:
        return fail("there is nothing to draw")
    try:
        with tf32_allowed(False):
            has_text = plot_readings(recognizer, images, arguments.output, titles=titles, text=arguments.text)
    except (OSError, ValueError) as error:
        return fail(describe_error(error))
    for path in itertools.compress(titles, (not found for found in has_text)):
        print_stderr(f"{path}: {decoding.NO_TEXT_FOUND}")
        status = 1
    return status
