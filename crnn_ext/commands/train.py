"""`crnn-ext train`: trains a network on lines of text."""

import argparse
import signal
from dataclasses import Field, fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from . import device
from . import parser as shared
from .distributed import run_distributed
from .errors import CommandError, catch_user_errors, is_out_of_memory
from .messages import print_stderr
from .parser import CommandParser

if TYPE_CHECKING:
    from crnn_ext.ocr.system.distributed import ProcessGroup
    from crnn_ext.ocr.training import TrainingConfig, TrainingResult


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "train",
        parents=[shared.DEVICE],
        allow_abbrev=False,
        help="train a network on lines of text",
        usage="crnn-ext train DATA [--val DATA] -o RUN [options]\n       crnn-ext train -o RUN --resume",
        description="Trains a network on the lines of a data set. The folder of the run receives the "
        "checkpoints best.safetensors, with the lowest validation CER, and last.safetensors; "
        "state.safetensors, to resume from; config.json, all settings; log.jsonl and TensorBoard files. "
        "Ctrl-C or SIGTERM stops the run after the current step with exit status 128 plus the signal's "
        "number. The exit status is 2 if training cannot begin or continue.",
    )
    parser.add_options = _add_options
    parser.set_defaults(run=run)


def _add_options(parser: CommandParser) -> None:
    """Adds an option for each setting. Options that are not given are absent from the namespace."""
    from crnn_ext.ocr.training import TrainingConfig

    parser.add_argument("-o", "--output", metavar="RUN", required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="resume the run in the folder")
    parser.add_argument(
        "--config", metavar="FILE", help="JSON file of settings, such as the config.json of another run"
    )
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
        # The type of "int | None" is int; a Literal lists the choices.
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        [kind] = [part for part in parts if part is not type(None)]
        if get_origin(kind) is Literal:
            options["choices"], kind = get_args(kind), str
        with_default = f"{text} ({setting.default})" if setting.default not in (None, "") else text
        options |= {"type": kind, "metavar": metavar, "help": with_default.replace("%", "%%")}
    parser.add_argument(f"--{setting.name.replace('_', '-')}", **options)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    return run_distributed(_train, arguments)


def _train(arguments: argparse.Namespace, group: "ProcessGroup") -> int:
    with catch_user_errors():
        from crnn_ext.ocr.training import TrainingError, train
        from crnn_ext.ocr.training.console import ConsoleLogger
        from crnn_ext.ocr.training.signals import stop_on_signals
        from crnn_ext.ocr.training.tensorboard import TensorBoardLogger

    folder = Path(arguments.output)
    try:
        with catch_user_errors(TrainingError):
            config = group.broadcast_from_rank0(lambda: _config(arguments, folder))
            with stop_on_signals() as stop_request:
                result = train(
                    config,
                    folder,
                    resume=arguments.resume,
                    device=device.select(arguments.device, group),
                    group=group,
                    callbacks=[ConsoleLogger(), TensorBoardLogger(folder / "tensorboard")],
                    stop=stop_request,
                )
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise CommandError("out of memory: try a smaller --batch-pixels") from error
        raise
    if group.rank == 0:
        print_stderr(_summary(result, folder))
    if result.reason == "stopped":
        return 128 + (stop_request.signal or signal.SIGTERM)
    return 0


def _config(arguments: argparse.Namespace, folder: Path) -> "TrainingConfig":
    """The settings of the file or of the run to resume, overridden by the options."""
    from crnn_ext.ocr.training import TrainingConfig
    from crnn_ext.ocr.training.run import CONFIG_FILE

    given = {
        setting.name: getattr(arguments, setting.name)
        for setting in fields(TrainingConfig)
        if hasattr(arguments, setting.name)
    }
    if arguments.resume:
        if arguments.config:
            raise ValueError("--config cannot be combined with --resume")
        if not (folder / CONFIG_FILE).exists():
            raise ValueError(f"{folder}: no run to resume")
        saved = TrainingConfig.load(folder / CONFIG_FILE)
        return TrainingConfig.from_dict({**saved.to_dict(), **given})
    base = TrainingConfig.load(arguments.config).to_dict() if arguments.config else {}
    config = TrainingConfig.from_dict({**base, **given})
    if not config.data:
        raise ValueError("DATA is required unless --resume is given")
    return config


def _summary(result: "TrainingResult", folder: Path) -> str:
    from crnn_ext.ocr.training.loop import BEST_CHECKPOINT

    summary = {
        "finished": f"finished after step {result.step}",
        "no progress": f"stopped early after step {result.step}: the validation CER stopped improving",
        "stopped": f"stopped after step {result.step}; to resume: crnn-ext train -o {folder} --resume",
    }[result.reason]
    if result.best_cer is None:
        return summary
    summary += f"; lowest CER {result.best_cer:.2%}, {folder / BEST_CHECKPOINT}"
    if result.best_cer >= 1:
        summary += "; the network reads nothing yet: try more epochs, a lower lr or a longer warmup"
    return summary
