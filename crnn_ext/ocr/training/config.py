"""The settings of a training run: `config.json` and the options of `crnn-ext train`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from crnn_ext._arguments import check_bool, check_choice, check_int, check_number, check_str, check_type
from crnn_ext.ocr.checkpoints import Architecture
from crnn_ext.ocr.data import DataError
from crnn_ext.ocr.images import Preprocessing, parse_resize
from crnn_ext.ocr.system.atomic_write import atomic_write_bytes

NetworkName = Literal["CRNN", "CRNN_v2", "CRNN_res"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]


def _setting(default: Any, text: str, metavar: str | None = None) -> Any:
    """A field with its help text for `crnn-ext train --help`."""
    return field(default=default, metadata={"help": text, "metavar": metavar})


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a training run. The metadata of each field holds its help text.

    Raises:
        TypeError, ValueError: a setting has a wrong type or value; the message names both.
    """

    data: str = _setting("", "training data set, as for crnn-ext check", "DATA")
    val: str | None = _setting(None, "validation data set (default: --val-fraction of DATA)", "DATA")
    val_fraction: float = _setting(
        0.1, "fraction of DATA to hold out for validation, drawn with the seed", "FRACTION"
    )
    charset: str | None = _setting(
        None, "UTF-8 file of the characters, line breaks ignored (default: all in DATA)", "FILE"
    )
    init: str | None = _setting(
        None, "start from this checkpoint; characters in both charsets keep their weights", "CHECKPOINT"
    )
    network: NetworkName = _setting("CRNN", "architecture, see docs/how-to/train.md")
    width: float = _setting(1.0, "factor on the channels of all convolutions", "FACTOR")
    hidden: int = _setting(256, "hidden units per direction of each LSTM", "UNITS")
    leaky_relu: bool = _setting(False, "LeakyReLU(0.2) instead of ReLU")
    channels: int = _setting(1, "1 for gray images, 3 for RGB", "C")
    resize: str = _setting("keep", "keep: keep the aspect ratio; fixed:100: resize to 100 columns", "HOW")
    epochs: int = _setting(30, "number of epochs", "N")
    batch_pixels: int = _setting(
        16 * 32 * 800, "pixels per batch with padding, after preprocessing", "PIXELS"
    )
    accumulate: int = _setting(1, "batches per process in one optimizer step", "BATCHES")
    lr: float = _setting(1e-3, "maximum learning rate of the one-cycle schedule", "RATE")
    warmup: float = _setting(0.1, "fraction of the steps before the maximum", "FRACTION")
    weight_decay: float = _setting(0.01, "weight decay of AdamW", "DECAY")
    clip: float = _setting(5.0, "maximum norm of the gradient", "NORM")
    precision: Precision | None = _setting(
        None, "autocast dtype; tf32: float32 with TF32 kernels (GPU: bfloat16, CPU: float32)"
    )
    freeze_batch_norm: bool = _setting(False, "keep the batch-norm statistics, for few lines or tiny batches")
    ema: float = _setting(
        0.0, "validate and save an average of the weights with this decay, e.g. 0.999", "DECAY"
    )
    augment: float = _setting(1.0, "strength of the augmentation; 0 turns it off", "STRENGTH")
    validate_every: int | None = _setting(None, "steps between validations (one epoch)", "STEPS")
    patience: int | None = _setting(
        None, "stop after this many validations without a lower CER", "VALIDATIONS"
    )
    save_every: int = _setting(1000, "steps between saved states; validations save one too", "STEPS")
    log_every: int = _setting(10, "steps between log entries", "STEPS")
    seed: int = _setting(0, "seed of weights, batches, augmentation and validation split", "SEED")
    workers: int | None = _setting(
        None, "data loading processes per training process (1; with a GPU up to 8)", "N"
    )

    def __post_init__(self) -> None:
        for name in ("data", "resize"):
            check_str(name, getattr(self, name))
        for name in ("val", "charset", "init"):
            check_type(name, getattr(self, name), (str, type(None)), "a str or null")
        for name in ("leaky_relu", "freeze_batch_norm"):
            check_bool(name, getattr(self, name))
        check_number("val_fraction", self.val_fraction, 0.001, 0.5)
        check_int("epochs", self.epochs, 1, 1_000_000)
        check_int("batch_pixels", self.batch_pixels, 1024, 1 << 32)
        check_int("accumulate", self.accumulate, 1, 10_000)
        check_number("lr", self.lr, 1e-8, 10)
        check_number("warmup", self.warmup, 0, 0.9)
        check_number("weight_decay", self.weight_decay, 0, 1)
        check_number("clip", self.clip, 1e-6, 1e6)
        check_choice("network", self.network, get_args(NetworkName))
        check_number("width", self.width, 1e-3, 16)
        check_int("hidden", self.hidden, 1, 1 << 14)
        if self.leaky_relu and self.network == "CRNN_res":
            raise ValueError("leaky_relu must be False for the network CRNN_res, got True")
        check_int("channels", self.channels, 1, 3)
        if self.channels == 2:
            raise ValueError("channels must be 1 or 3, got 2")
        parse_resize(self.resize)
        if self.precision is not None:
            check_choice("precision", self.precision, get_args(Precision))
        # An average with decay 1 would keep the initial weights for ever.
        check_number("ema", self.ema, 0, 0.99999)
        check_number("augment", self.augment, 0, 2)
        check_int("log_every", self.log_every, 1, 1 << 40)
        check_int("save_every", self.save_every, 1, 1 << 40)
        check_int("seed", self.seed, 0, (1 << 31) - 1)
        optional = (("validate_every", 1, 1 << 40), ("patience", 1, 1 << 40), ("workers", 0, 1024))
        for name, least, most in optional:
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), least, most)

    def architecture(self, nclass: int) -> Architecture:
        """The architecture of a new network."""
        return Architecture(
            self.network,
            nclass,
            nh=self.hidden,
            nc=self.channels,
            leakyRelu=self.leaky_relu,
            width=self.width,
        )

    def preprocessing(self) -> Preprocessing:
        """The preprocessing of a new network."""
        return Preprocessing(channels=self.channels, width=parse_resize(self.resize))

    def with_checkpoint(self, architecture: Architecture, preprocessing: Preprocessing) -> "TrainingConfig":
        """These settings with the architecture and preprocessing of a checkpoint.

        Raises:
            ValueError: a setting contradicts the checkpoint and is not at its default.
        """
        fixed: dict[str, Any] = {
            "network": architecture.name,
            "width": architecture.width,
            "hidden": architecture.nh,
            "leaky_relu": architecture.leakyRelu,
            "channels": preprocessing.channels,
            "resize": "keep" if preprocessing.width is None else f"fixed:{preprocessing.width}",
        }
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value not in (setting.default, fixed.get(setting.name, value)):
                raise ValueError(
                    f"{setting.name} must be {fixed[setting.name]!r} as in {self.init}, got {value!r}"
                )
        return replace(self, **fixed)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrainingConfig":
        """The inverse of `to_dict`; missing settings get their defaults. Safe on untrusted data.

        Raises:
            TypeError, ValueError: the data is not a mapping or has an unknown key, or as the constructor.
        """
        check_type("the settings", data, Mapping, "a JSON object")
        unknown = set(data) - {setting.name for setting in fields(cls)}
        if unknown:
            name = str(min(unknown, key=str))
            similar = get_close_matches(name, [setting.name for setting in fields(cls)], 1)
            raise ValueError(
                f"unknown setting {name!r:.60}" + (f"; did you mean {similar[0]}?" if similar else "")
            )
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """All settings."""
        return asdict(self)

    @classmethod
    def load(cls, path: str | Path) -> "TrainingConfig":
        """The settings of a JSON file. Safe on untrusted files.

        Raises:
            DataError: the file cannot be read or is not valid; the message names it.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_bytes()))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes the settings to a JSON file.

        Raises:
            OSError: the file cannot be written.
        """
        atomic_write_bytes(path, (json.dumps(self.to_dict(), indent=2) + "\n").encode())
