"""`crnn-ext train`: a network that reads lines like those of a data set."""

import argparse
import signal
from dataclasses import Field, fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from . import device
from .distributed import run_distributed
from .messages import describe_error, fail, is_out_of_memory, print_stderr
from .parser import CommandParser

if TYPE_CHECKING:
    from crnn_ext.ocr.system.distributed import ProcessGroup
    from crnn_ext.ocr.training import TrainingConfig, TrainingResult


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
    return run_distributed(_train, arguments)


def _train(arguments: argparse.Namespace, group: "ProcessGroup") -> int:
    try:
        from crnn_ext.ocr.training import TrainingError, train
        from crnn_ext.ocr.training.console import ConsoleLogger
        from crnn_ext.ocr.training.signals import stop_on_signals
        from crnn_ext.ocr.training.tensorboard import TensorBoardLogger
    except ImportError as error:
        return fail(str(error))
    folder = Path(arguments.output)
    try:
        config = group.broadcast_from_rank0(lambda: _config(arguments, folder))
        with stop_on_signals() as interrupted:
            result = train(
                config,
                folder,
                resume=arguments.resume,
                device=device.select(arguments.device, group),
                group=group,
                callbacks=[ConsoleLogger(), TensorBoardLogger(folder / "tensorboard")],
                stop=interrupted,
            )
    except (ValueError, ImportError, OSError, TrainingError) as error:
        return fail(describe_error(error))
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return fail("memory is short: a smaller batch_pixels takes less")
        raise
    if group.rank == 0:
        print_stderr(_told(result, folder))
    if result.reason == "stopped":
        return 128 + (interrupted.signal or signal.SIGTERM)
    return 0


def _config(arguments: argparse.Namespace, folder: Path) -> "TrainingConfig":
    """The settings of the file or of the run in the folder, and over them those given as options."""
    from crnn_ext.ocr.training import TrainingConfig
    from crnn_ext.ocr.training.run import CONFIG_FILE

    given = {
        setting.name: getattr(arguments, setting.name)
        for setting in fields(TrainingConfig)
        if hasattr(arguments, setting.name)
    }
    if arguments.resume:
        if arguments.config:
            raise ValueError("--resume goes on with the settings of the run, so --config is for others")
        if not (folder / CONFIG_FILE).exists():
            raise ValueError(f"{folder}: there is no run to go on with")
        saved = TrainingConfig.load(folder / CONFIG_FILE)
        return TrainingConfig.from_dict({**saved.to_dict(), **given})
    base = TrainingConfig.load(arguments.config).to_dict() if arguments.config else {}
    config = TrainingConfig.from_dict({**base, **given})
    if not config.data:
        raise ValueError("DATA must be given: the data set to train on")
    return config


def _told(result: "TrainingResult", folder: Path) -> str:
    from crnn_ext.ocr.training.loop import BEST_CHECKPOINT

    best = (
        ""
        if result.best_cer is None
        else f"; the best CER is {result.best_cer:.2%}, of {folder / BEST_CHECKPOINT}"
    )
    if result.best_cer is not None and result.best_cer >= 1:
        best += ", which reads nothing yet: it may take more epochs, a lower lr or a longer warmup"
    why = {
        "finished": "done",
        "no progress": "ended, as validations had become no better",
        "stopped": f"stopped; crnn-ext train -o {folder} --resume goes on",
    }[result.reason]
    return f"{why}, after step {result.step}{best}"
