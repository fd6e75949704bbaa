"""All settings of a training run in one place, as a file holds them and `crnn-ext train` takes them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from crnn_ext.ocr.checkpoints import Architecture
from crnn_ext.ocr.data import DataError
from crnn_ext.ocr.images import Preprocessing, parse_resize
from crnn_ext.ocr.system.arguments import check_int, check_number
from crnn_ext.ocr.system.atomic_write import atomic_write_bytes

NetworkName = Literal["CRNN", "CRNN_v2", "CRNN_res"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]


def _setting(default: Any, text: str, metavar: str | None = None) -> Any:
    """A field with what `crnn-ext train --help` says of it."""
    return field(default=default, metadata={"help": text, "metavar": metavar})


@dataclass(frozen=True)
class TrainingConfig:
    """What a run trains, on what, and how. The metadata of each field says what it means.

    Raises:
        TypeError, ValueError: a setting breaks its rule; the message names it and the value.
    """

    data: str = _setting("", "the data set to train on, as for crnn-ext check", "DATA")
    val: str | None = _setting(
        None, "the data set that tells how far the network is; without it, a part of DATA", "DATA"
    )
    val_fraction: float = _setting(
        0.1, "the share of the lines of DATA, drawn by the seed, that is that part", "SHARE"
    )
    charset: str | None = _setting(
        None,
        "the characters, in a UTF-8 file; line breaks in it do not count (those of all labels of DATA)",
        "FILE",
    )
    init: str | None = _setting(
        None,
        "start from the weights, architecture and preprocessing of this checkpoint; characters that both "
        "charsets have keep what was learnt of them",
        "CHECKPOINT",
    )
    network: NetworkName = _setting("CRNN", "which network: docs/how-to/train.md tells them apart")
    width: float = _setting(1.0, "factor on the channels of all convolutions", "FACTOR")
    hidden: int = _setting(256, "hidden units of each direction of each LSTM", "UNITS")
    leaky_relu: bool = _setting(False, "LeakyReLU(0.2) in place of ReLU")
    channels: int = _setting(1, "1 for grey images, 3 for RGB", "C")
    resize: str = _setting(
        "keep", "keep: the aspect ratio; fixed:100: every image becomes 100 columns wide", "HOW"
    )
    epochs: int = _setting(30, "how often each line is trained on", "N")
    batch_pixels: int = _setting(
        16 * 32 * 800, "pixels of a batch with its padding, after preprocessing", "PIXELS"
    )
    accumulate: int = _setting(1, "batches of each process that make one step", "BATCHES")
    lr: float = _setting(1e-3, "the highest learning rate of the one-cycle schedule", "RATE")
    warmup: float = _setting(0.1, "the share of the steps in which it is reached", "SHARE")
    weight_decay: float = _setting(0.01, "of AdamW", "DECAY")
    clip: float = _setting(5.0, "longer gradients are shortened to this norm", "NORM")
    precision: Precision | None = _setting(
        None,
        "of what allows it, the rest is float32; tf32: float32 that a GPU rounds in convolutions and LSTMs "
        "(bfloat16 on a GPU, else float32)",
    )
    freeze_batch_norm: bool = _setting(
        False, "leave the statistics of batch normalisation as they are, for few lines or tiny batches"
    )
    ema: float = _setting(
        0.0, "validate and save a moving average of the weights with this decay, such as 0.999", "DECAY"
    )
    augment: float = _setting(1.0, "strength of the distortions of training images; 0 for none", "STRENGTH")
    validate_every: int | None = _setting(None, "steps from one validation to the next (an epoch)", "STEPS")
    patience: int | None = _setting(
        None, "stop after so many validations without a better character error rate", "VALIDATIONS"
    )
    save_every: int = _setting(
        1000, "steps from one saved state to the next, beside those at validations", "STEPS"
    )
    log_every: int = _setting(10, "steps from one entry of the log to the next", "STEPS")
    seed: int = _setting(0, "draws new weights, batches, distortions and the part for validation", "SEED")
    workers: int | None = _setting(
        None, "processes that load lines, of each process that trains (1, with a GPU up to 8)", "N"
    )

    def __post_init__(self) -> None:
        for name in ("data", "resize"):
            self._check_type(name, str)
        for name in ("val", "charset", "init"):
            self._check_type(name, str, None)
        for name in ("leaky_relu", "freeze_batch_norm"):
            self._check_type(name, bool)
        check_number("", "val_fraction", self.val_fraction, 0.001, 0.5)
        check_int("", "epochs", self.epochs, 1, 1_000_000)
        check_int("", "batch_pixels", self.batch_pixels, 1024, 1 << 32)
        check_int("", "accumulate", self.accumulate, 1, 10_000)
        check_number("", "lr", self.lr, 1e-8, 10)
        check_number("", "warmup", self.warmup, 0, 0.9)
        check_number("", "weight_decay", self.weight_decay, 0, 1)
        check_number("", "clip", self.clip, 1e-6, 1e6)
        self._check_name("network", get_args(NetworkName))
        check_number("", "width", self.width, 1e-3, 16)
        check_int("", "hidden", self.hidden, 1, 1 << 14)
        if self.leaky_relu and self.network == "CRNN_res":
            raise ValueError("leaky_relu must be False for the network CRNN_res, and it is True")
        check_int("", "channels", self.channels, 1, 3)
        if self.channels == 2:
            raise ValueError("channels must be 1 or 3, and it is 2")
        parse_resize(self.resize)
        if self.precision is not None:
            self._check_name("precision", get_args(Precision))
        # An average with decay 1 would never move from where the network began.
        check_number("", "ema", self.ema, 0, 0.99999)
        check_number("", "augment", self.augment, 0, 2)
        check_int("", "log_every", self.log_every, 1, 1 << 40)
        check_int("", "save_every", self.save_every, 1, 1 << 40)
        check_int("", "seed", self.seed, 0, (1 << 31) - 1)
        optional = (("validate_every", 1, 1 << 40), ("patience", 1, 1 << 40), ("workers", 0, 1024))
        for name, least, most in optional:
            if getattr(self, name) is not None:
                check_int("", name, getattr(self, name), least, most)

    def _check_name(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in list(allowed):  # a list, as the value may be unhashable
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, and it is {value!r:.60}")

    def _check_type(self, name: str, *types: type | None) -> None:
        value = getattr(self, name)
        if not any(value is None if expected is None else isinstance(value, expected) for expected in types):
            names = " or ".join("null" if expected is None else expected.__name__ for expected in types)
            raise TypeError(f"{name} must be of type {names}, and it is {value!r:.60}")

    def architecture(self, nclass: int) -> Architecture:
        """The network to train, if it is a new one."""
        return Architecture(
            self.network,
            nclass,
            nh=self.hidden,
            nc=self.channels,
            leakyRelu=self.leaky_relu,
            width=self.width,
        )

    def preprocessing(self) -> Preprocessing:
        """What is done to images, if the network is a new one."""
        return Preprocessing(channels=self.channels, width=parse_resize(self.resize))

    def with_checkpoint(self, architecture: Architecture, preprocessing: Preprocessing) -> "TrainingConfig":
        """These settings with what a checkpoint decides.

        Raises:
            ValueError: one of them has another value here, which is not its default.
        """
        decided: dict[str, Any] = {
            "network": architecture.name,
            "width": architecture.width,
            "hidden": architecture.nh,
            "leaky_relu": architecture.leakyRelu,
            "channels": preprocessing.channels,
            "resize": "keep" if preprocessing.width is None else f"fixed:{preprocessing.width}",
        }
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value not in (setting.default, decided.get(setting.name, value)):
                raise ValueError(
                    f"{setting.name} must be {decided[setting.name]!r} as in {self.init}, and it is {value!r}"
                )
        return replace(self, **decided)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrainingConfig":
        """The settings that `to_dict` wrote, all others at their defaults. The data need not be trusted.

        Raises:
            TypeError, ValueError: the data is no mapping, has a key that is no setting, and as the
                constructor.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"the settings must be a JSON object, and they are {data!r:.60}")
        unknown = set(data) - {setting.name for setting in fields(cls)}
        if unknown:
            name = str(min(unknown, key=str))
            meant = get_close_matches(name, [setting.name for setting in fields(cls)], 1)
            raise ValueError(
                f"{name!r:.60} is no setting of a training run" + (f"; {meant[0]} is one" if meant else "")
            )
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """All settings."""
        return asdict(self)

    @classmethod
    def load(cls, path: str | Path) -> "TrainingConfig":
        """The settings of a JSON file. The file need not be trusted.

        Raises:
            DataError: it cannot be read or is not of that form; the message names it.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_bytes()))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes the settings as a JSON file.

        Raises:
            OSError: it cannot be written.
        """
        atomic_write_bytes(path, (json.dumps(self.to_dict(), indent=2) + "\n").encode())
