"""What a run needs, beside its settings, to go on as if it had never stopped.

It is one safetensors file, so that its parts are always of the same step. Its metadata has one entry,
`crnn_ext_training`, a JSON object. All that is drawn at random while training is drawn from the seed, the
epoch and the line alone, and so a step says where every generator stands.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crnn_ext.ocr.checkpoints.checkpoint import TRAINING_METADATA_KEY
from crnn_ext.ocr.data import DataError
from crnn_ext.ocr.system.arguments import check_int, check_keys, check_number
from crnn_ext.ocr.system.atomic_write import atomic_write_bytes

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done.
        best: the lowest character error rate of a validation, None before the first.
        without_better: validations since then.
        batches_a_step: of all processes; with another number the steps would be others.
        lines: the fingerprint of the lines that are trained on.
        validation: that of the lines for validation, whose error rate `best` is.
        loss_scale, steps_at_scale: of the gradient scaler; 1 and 0 unless the precision is float16.
    """

    step: int
    best: float | None
    without_better: int
    batches_a_step: int
    lines: str
    validation: str
    loss_scale: float = 1.0
    steps_at_scale: int = 0

    def __post_init__(self) -> None:
        check_int("", "step", self.step, 0, 1 << 50)
        if self.best is not None:
            check_number("", "best", self.best, 0, 1e9)
        check_int("", "without_better", self.without_better, 0, 1 << 50)
        check_int("", "batches_a_step", self.batches_a_step, 1, 1 << 50)
        for name in ("lines", "validation"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a str, and it is {getattr(self, name)!r:.60}")
        check_number("", "loss_scale", self.loss_scale, 1e-30, 1e30)
        check_int("", "steps_at_scale", self.steps_at_scale, 0, 1 << 50)


def save_state(path: Path, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Writes the file; one of the same name is replaced when the new one is on the disk.

    Raises:
        OSError: it cannot be written.
    """
    metadata = {TRAINING_METADATA_KEY: json.dumps({"format": FORMAT_VERSION, **asdict(progress)})}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write_bytes(path, save(on_cpu, metadata))


def load_state(path: Path, expected: Mapping[str, Tensor]) -> tuple[Progress, dict[str, Tensor]]:
    """Reads a file that `save_state` wrote. The file need not be trusted.

    Args:
        path: the file.
        expected: tensors of the names, shapes and dtypes that it must have.

    Returns:
        Where the run stands, and the tensors, on the CPU.

    Raises:
        DataError: it cannot be read, is damaged or foreign; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            progress = _progress(file.metadata() or {})
            names = set(file.keys())
            if names != set(expected):
                [example, *_] = sorted(names ^ set(expected))
                raise ValueError(
                    f"its tensors are not those of this run: {example:.60} is only in one of them"
                )
            tensors = {}
            for name, tensor in expected.items():
                found = file.get_slice(name)
                if list(found.get_shape()) != list(tensor.shape):
                    raise ValueError(f"{name} must be {tuple(tensor.shape)}, and it is {found.get_shape()}")
                tensors[name] = file.get_tensor(name)
                if tensors[name].dtype != tensor.dtype:
                    raise ValueError(f"{name} must be {tensor.dtype}, and it is {tensors[name].dtype}")
                if not tensors[name].isfinite().all():
                    raise ValueError(f"{name} must be finite, and it holds NaN or infinity")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (SafetensorError, TypeError, ValueError) as error:
        raise DataError(f"{path}: it is no whole state of a training run: {error}") from error
    return progress, tensors


def _progress(metadata: Mapping[str, str]) -> Progress:
    if TRAINING_METADATA_KEY not in metadata:
        raise ValueError(f"its metadata has no entry {TRAINING_METADATA_KEY!r}")
    try:
        data: Any = json.loads(metadata[TRAINING_METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its metadata {TRAINING_METADATA_KEY!r} is no JSON: {error}") from error
    if isinstance(data, dict):
        check_int("", "format", data.pop("format", None), FORMAT_VERSION, FORMAT_VERSION)
    return Progress(**check_keys("", data, {field.name for field in fields(Progress)}))
