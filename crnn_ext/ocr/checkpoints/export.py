"""Export of checkpoints to ONNX and to programs of torch.export, which run without this package.

Inputs: `images`, float32 `(N, nc, 32, W)`, preprocessed; `widths`, int64 `(N,)`, the columns of each image
without padding. Outputs: `logits`, float32 `(T, N, C)`; `lengths`, int64 `(N,)`, the frames of each image
without padding. N and W are dynamic. The file also contains the other settings of the checkpoint.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crnn_ext.ocr.images.preprocessing import MAX_COLUMNS, MIN_COLUMNS
from crnn_ext.ocr.system.atomic_write import atomic_write_bytes

from .architecture import Network
from .checkpoint import METADATA_KEY, Checkpoint, settings_json

ExportFormat = Literal["onnx", "pt2"]

# In earlier versions, torch's shape rules of pooling and linear layers specialize on even or odd widths.
_MIN_TORCH = "2.13"

# Rounding errors are far below this bound for logits of realistic size, real errors far above it.
TOLERANCE = 1e-3
_BATCHES = ((1, MIN_COLUMNS), (1, 131), (3, 64), (6, 250))  # N and W of the compared batches

# The dynamic axes of inputs and outputs.
_IMAGES, _WIDTHS, _LOGITS = {0: "N", 3: "W"}, {0: "N"}, {0: "T", 1: "N"}

# Maps images and widths to logits and lengths.
_Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ExportError(RuntimeError):
    """The network cannot be exported, or the exported network computes different logits."""


class _NetworkWithLengths(nn.Module):
    """A network that also returns its `output_lengths`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images, widths), self.network.output_lengths(widths)


def export_checkpoint(path: str | Path, checkpoint: Checkpoint, file_format: ExportFormat) -> float | None:
    """Exports a checkpoint, compares the logits on batches of random images, and writes the file atomically.

    Args:
        path: the file.
        checkpoint: the checkpoint; its network must be on the CPU and is set to evaluation mode.
        file_format: "onnx", which needs onnxscript, and onnxruntime for the comparison; or "pt2", the
            archive of `torch.export.save`.

    Returns:
        The largest difference of a logit, padding excluded; None if onnxruntime is not installed and the
        logits were not compared.

    Raises:
        ExportError: the network cannot be exported, or a logit differs by more than 0.001.
        ImportError: onnxscript is not installed.
        OSError: the file cannot be written; an existing file is left unchanged.
    """
    if torch.__version__ < _MIN_TORCH:
        raise ExportError(
            f"export with a dynamic width needs torch {_MIN_TORCH} or later, got {torch.__version__}"
        )
    module = _NetworkWithLengths(checkpoint.network).eval()
    settings = settings_json(checkpoint)
    with _suppress_exporter_output(), torch.no_grad():
        try:
            program = _program(module, checkpoint.architecture.nc)
            content = _onnx(program, settings) if file_format == "onnx" else _pt2(program, settings)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first_line = str(error).partition("\n")[0]
            raise ExportError(f"torch cannot export the network: {first_line}") from error
        run = _onnx_run(content) if file_format == "onnx" else _pt2_run(content)
        difference = None if run is None else _difference(run, module, checkpoint.architecture.nc)
    if difference is not None and not difference <= TOLERANCE:
        raise ExportError(
            f"the exported logits must be within {TOLERANCE:g} of torch's, got a difference of {difference:g}"
        )
    atomic_write_bytes(path, content)
    return difference


def _program(module: _NetworkWithLengths, channels: int) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    columns = torch.export.Dim("columns", min=MIN_COLUMNS, max=MAX_COLUMNS)
    example = (torch.zeros(2, channels, 32, 50), torch.tensor([50, 33]))
    dynamic = {"images": {0: batch, 3: columns}, "widths": {0: batch}}
    program = torch.export.export(module, example, dynamic_shapes=dynamic)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it contains paths of this machine
    return program


def _onnx(program: torch.export.ExportedProgram, settings: str) -> bytes:
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it; its own error message is long)
    except ImportError as error:
        raise ImportError(
            "ONNX export needs onnxscript, which is not installed: install crnn_ext with its extra [export]"
        ) from error
    exported = torch.onnx.export(
        program, input_names=["images", "widths"], output_names=["logits", "lengths"], verbose=False
    )
    assert exported is not None
    model: Any = exported.model_proto
    graph = model.graph
    # Remove debugging information of the exporter, half of the file, and name the axes T, N and W.
    del graph.value_info[:]
    for node in graph.node:
        del node.metadata_props[:]
    for value, axes in zip([*graph.input, *graph.output], (_IMAGES, _WIDTHS, _LOGITS, _WIDTHS), strict=True):
        for axis, name in axes.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    model.metadata_props.add(key=METADATA_KEY, value=settings)
    content: bytes = model.SerializeToString()
    return content


def _pt2(program: torch.export.ExportedProgram, settings: str) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA_KEY: settings})
    return file.getvalue()


def _onnx_run(content: bytes) -> _Run | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        logits, lengths = session.run(
            ["logits", "lengths"], {"images": images.numpy(), "widths": widths.numpy()}
        )
        return torch.from_numpy(logits), torch.from_numpy(lengths)

    return run


def _pt2_run(content: bytes) -> _Run:
    run: Any = torch.export.load(io.BytesIO(content)).module()
    return run  # type: ignore[no-any-return]


def _difference(run: _Run, module: _NetworkWithLengths, channels: int) -> float:
    """The largest difference of a logit, padding excluded; infinity if lengths or shapes differ."""
    generator = torch.Generator().manual_seed(0)
    largest = []
    for samples, columns in _BATCHES:
        images = torch.rand(samples, channels, 32, columns, generator=generator) * 2 - 1
        widths = torch.randint(MIN_COLUMNS, columns + 1, (samples,), generator=generator)
        widths[0] = columns
        expected, expected_lengths = module(images, widths)
        logits, lengths = run(images, widths)
        if logits.shape != expected.shape or not lengths.equal(expected_lengths):
            return float("inf")
        valid = torch.arange(len(logits)).unsqueeze(1) < lengths
        largest.append((logits - expected)[valid].abs().max())
    return torch.stack(largest).max().item()  # NaN if any is


@contextmanager
def _suppress_exporter_output() -> Iterator[None]:
    """Suppresses warnings and log messages of torch's exporters about their internals."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
