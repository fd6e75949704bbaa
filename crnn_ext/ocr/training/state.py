"""The saved state of a run, from which it resumes with the same results.

The state is a single safetensors file, so all its parts belong to the same step. Its metadata has one entry,
`crnn_ext_training`, a JSON object. It holds no state of random generators: every random choice depends only
on the seed, the epoch and the line.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crnn_ext._arguments import check_int, check_keys, check_number, check_str
from crnn_ext.ocr.checkpoints.checkpoint import TRAINING_METADATA_KEY
from crnn_ext.ocr.data import DataError
from crnn_ext.ocr.system.atomic_write import atomic_write_bytes

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Progress:
    """The position of a run.

    Attributes:
        step: steps done.
        best: lowest validation CER; None before the first validation.
        without_better: validations since the lowest CER.
        batches_a_step: batches per step of all processes; another number would change the steps.
        lines: fingerprint of the training lines.
        validation: fingerprint of the validation lines, to which `best` refers.
        loss_scale, steps_at_scale: scale of the gradient scaler and the steps since it last changed; 1 and 0
            unless the precision is float16.
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
        check_int("step", self.step, 0, 1 << 50)
        if self.best is not None:
            check_number("best", self.best, 0, 1e9)
        check_int("without_better", self.without_better, 0, 1 << 50)
        check_int("batches_a_step", self.batches_a_step, 1, 1 << 50)
        for name in ("lines", "validation"):
            check_str(name, getattr(self, name))
        check_number("loss_scale", self.loss_scale, 1e-30, 1e30)
        check_int("steps_at_scale", self.steps_at_scale, 0, 1 << 50)


def save_state(path: Path, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Writes the state atomically: an existing file is replaced only when the new one is on the disk.

    Raises:
        OSError: the file cannot be written.
    """
    metadata = {TRAINING_METADATA_KEY: json.dumps({"format": FORMAT_VERSION, **asdict(progress)})}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write_bytes(path, save(on_cpu, metadata))


def load_state(path: Path, expected: Mapping[str, Tensor]) -> tuple[Progress, dict[str, Tensor]]:
    """Reads a file of `save_state`. Safe on untrusted files.

    Args:
        path: the file.
        expected: tensors with the names, shapes and dtypes that the file must have.

    Returns:
        The progress, and the tensors on the CPU.

    Raises:
        DataError: the file cannot be read, is damaged or belongs to another run; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            progress = _progress(file.metadata() or {})
            names = set(file.keys())
            if names != set(expected):
                [example, *_] = sorted(names ^ set(expected))
                raise ValueError(
                    f"its tensors are not those of this run: {example:.60} is in only one of the two"
                )
            tensors = {}
            for name, tensor in expected.items():
                found = file.get_slice(name)
                if list(found.get_shape()) != list(tensor.shape):
                    raise ValueError(
                        f"{name} must have shape {tuple(tensor.shape)}, got {tuple(found.get_shape())}"
                    )
                tensors[name] = file.get_tensor(name)
                if tensors[name].dtype != tensor.dtype:
                    raise ValueError(f"{name} must be {tensor.dtype}, got {tensors[name].dtype}")
                if not tensors[name].isfinite().all():
                    raise ValueError(f"{name} must be finite, got NaN or infinity")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (SafetensorError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a valid training state: {error}") from error
    return progress, tensors


def _progress(metadata: Mapping[str, str]) -> Progress:
    if TRAINING_METADATA_KEY not in metadata:
        raise ValueError(f"its metadata has no entry {TRAINING_METADATA_KEY!r}")
    try:
        data: Any = json.loads(metadata[TRAINING_METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its metadata {TRAINING_METADATA_KEY!r} is not valid JSON: {error}") from error
    if isinstance(data, dict):
        check_int("format", data.pop("format", None), FORMAT_VERSION, FORMAT_VERSION)
    return Progress(**check_keys("progress", data, {field.name for field in fields(Progress)}))
