"""`crnn-ext train`: a network that reads lines like those of a data set."""

import argparse
import signal
from dataclasses import Field, fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from . import device
from .distributed import run_together
from .messages import complain, explained, failure, is_short_of_memory
from .parser import CommandParser

if TYPE_CHECKING:
    from crnn_ext.ocr.system.distributed import World
    from crnn_ext.ocr.training import Outcome, TrainingConfig


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train a network on lines of text",
        usage="crnn-ext train DATA [--val DATA] -o RUN [options]\n       crnn-ext train -o RUN --resume",
        description="Trains a network on the lines of a data set and saves it in a folder: best.safetensors, "
        "which reads the lines for validation best, and last.safetensors, both for crnn-ext read; "
        "state.safetensors, with which the run can go on; config.json, all settings; log.jsonl and the files "
        "of TensorBoard. Ctrl-C or SIGTERM end it after the step that it is in, and the exit status is then "
        "128 plus the signal's number; it is 2 if training cannot begin or go on.",
    )
    parser.add_options = _add_options
    parser.set_defaults(run=run)


def _add_options(parser: CommandParser) -> None:
    """Adds an option for each setting. Those that are not given are not in the namespace."""
    from crnn_ext.ocr.training import TrainingConfig

    parser.add_argument("-o", "--output", metavar="RUN", required=True, help="the folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument(
        "--config", metavar="FILE", help="settings in a JSON file, such as the config.json of another run"
    )
    device.add_option(parser)
    types = get_type_hints(TrainingConfig)
    for setting in fields(TrainingConfig):
        _add_option(parser, setting, types[setting.name])


def _add_option(parser: argparse.ArgumentParser, setting: "Field[Any]", hint: Any) -> None:
    text, metavar = setting.metadata["help"], setting.metadata["metavar"]
    if setting.name == "data":
        parser.add_argument("data", nargs="?", default=argparse.SUPPRESS, metavar=metavar, help=text)
        return
    options: dict[str, Any] = {"default": argparse.SUPPRESS}
    if hint is bool:
        options |= {"action": argparse.BooleanOptionalAction, "help": text}
    else:
        # Of "int | None" int; of names those that there are.
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        [kind] = [part for part in parts if part is not type(None)]
        if get_origin(kind) is Literal:
            options["choices"], kind = get_args(kind), str
        shown = f"{text} ({setting.default})" if setting.default not in (None, "") else text
        options |= {"type": kind, "metavar": metavar, "help": shown.replace("%", "%%")}
    parser.add_argument(f"--{setting.name.replace('_', '-')}", **options)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    return run_together(_train, arguments)


def _train(arguments: argparse.Namespace, world: "World") -> int:
    try:
        from crnn_ext.ocr.training import TrainingError, train
        from crnn_ext.ocr.training.display import Display
        from crnn_ext.ocr.training.interruption import interruption
        from crnn_ext.ocr.training.tensorboard import TensorBoard
    except ImportError as error:
        return failure(str(error))
    folder = Path(arguments.output)
    try:
        config = world.from_first(lambda: _config(arguments, folder))
        with interruption() as interrupted:
            outcome = train(
                config,
                folder,
                resume=arguments.resume,
                device=device.chosen(arguments.device, world),
                world=world,
                observers=[Display(), TensorBoard(folder / "tensorboard")],
                stop=interrupted,
            )
    except (ValueError, ImportError, OSError, TrainingError) as error:
        return failure(explained(error))
    except (MemoryError, RuntimeError) as error:
        if is_short_of_memory(error):
            return failure("memory is short: a smaller batch_pixels takes less")
        raise
    if world.rank == 0:
        complain(_told(outcome, folder))
    if outcome.why == "stopped":
        return 128 + (interrupted.signal or signal.SIGTERM)
    return 0


def _config(arguments: argparse.Namespace, folder: Path) -> "TrainingConfig":
    """The settings of the file or of the run in the folder, and over them those given as options."""
    from crnn_ext.ocr.training import TrainingConfig
    from crnn_ext.ocr.training.start import CONFIG

    given = {
        setting.name: getattr(arguments, setting.name)
        for setting in fields(TrainingConfig)
        if hasattr(arguments, setting.name)
    }
    if arguments.resume:
        if arguments.config:
            raise ValueError("--resume goes on with the settings of the run, so --config is for others")
        if not (folder / CONFIG).exists():
            raise ValueError(f"{folder}: there is no run to go on with")
        saved = TrainingConfig.load(folder / CONFIG)
        return TrainingConfig.from_dict({**saved.to_dict(), **given})
    base = TrainingConfig.load(arguments.config).to_dict() if arguments.config else {}
    config = TrainingConfig.from_dict({**base, **given})
    if not config.data:
        raise ValueError("DATA must be given: the data set to train on")
    return config


def _told(outcome: "Outcome", folder: Path) -> str:
    from crnn_ext.ocr.training.loop import BEST

    best = "" if outcome.best is None else f"; the best CER is {outcome.best:.2%}, of {folder / BEST}"
    if outcome.best is not None and outcome.best >= 1:
        best += ", which reads nothing yet: it may take more epochs, a lower lr or a longer warmup"
    why = {
        "finished": "done",
        "no progress": "ended, as validations had become no better",
        "stopped": f"stopped; crnn-ext train -o {folder} --resume goes on",
    }[outcome.why]
    return f"{why}, after step {outcome.step}{best}"
