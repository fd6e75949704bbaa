"""Checkpoints as files that read without this package: ONNX, and the programs of torch.export.

Both have the inputs `images`, float32 `(N, nc, 32, W)`, preprocessed, and `widths`, int64 `(N,)`, how many
columns each image has of its own, and the outputs `logits`, float32 `(T, N, C)`, and `lengths`, int64 `(N,)`,
how many of the T frames are its own; N and W are any. Beside the network they hold what a checkpoint holds.
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

# Before it, torch's shape rules of pooling and of linear layers fix whether a width is even.
_FIRST_TORCH = "2.13"

# Rounding is far below it on logits of any size that a softmax tells apart, and every mistake far above.
TOLERANCE = 1e-3
_BATCHES = ((1, MIN_COLUMNS), (1, 131), (3, 64), (6, 250))  # N and W of what is compared

# The axes of inputs and outputs that are of any size.
_IMAGES, _WIDTHS, _LOGITS = {0: "N", 3: "W"}, {0: "N"}, {0: "T", 1: "N"}

# Logits and lengths of images and widths.
_Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ExportError(RuntimeError):
    """A network that cannot be exported, or does not compute the same when it is; the message says why."""


class _Reader(nn.Module):
    """The network and its `output_lengths` in one."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images, widths), self.network.output_lengths(widths)


def export_checkpoint(path: str | Path, checkpoint: Checkpoint, file_format: ExportFormat) -> float | None:
    """Writes the file, if what it computes is what the network computes, on batches of random images.

    One of the same name is replaced when the new one is complete.

    Args:
        path: the file.
        checkpoint: what to export; its network, on the CPU, is put into evaluation mode.
        file_format: "onnx", which needs onnxscript, and onnxruntime for the comparison; or "pt2", the archive of
            `torch.export.save`.

    Returns:
        The largest difference of a logit of an image's own frames; None if onnxruntime is not installed, so
        that nothing was compared.

    Raises:
        ExportError: the network cannot be exported, or a logit differs by more than 0.001.
        ImportError: onnxscript is not installed.
        OSError: the file cannot be written.
    """
    if torch.__version__ < _FIRST_TORCH:
        raise ExportError(
            f"torch {torch.__version__} cannot export networks for any width; torch {_FIRST_TORCH} can"
        )
    reader = _Reader(checkpoint.network).eval()
    settings = settings_json(checkpoint)
    with _silent(), torch.no_grad():
        try:
            program = _program(reader, checkpoint.architecture.nc)
            content = _onnx(program, settings) if file_format == "onnx" else _pt2(program, settings)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first_line = str(error).partition("\n")[0]
            raise ExportError(f"torch cannot export it: {first_line}") from error
        run = _onnx_run(content) if file_format == "onnx" else _pt2_run(content)
        difference = None if run is None else _difference(run, reader, checkpoint.architecture.nc)
    if difference is not None and not difference <= TOLERANCE:
        raise ExportError(
            f"its logits must be within {TOLERANCE:g} of torch's, and they differ by {difference:g}"
        )
    atomic_write_bytes(path, content)
    return difference


def _program(reader: _Reader, channels: int) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    columns = torch.export.Dim("columns", min=MIN_COLUMNS, max=MAX_COLUMNS)
    example = (torch.zeros(2, channels, 32, 50), torch.tensor([50, 33]))
    dynamic = {"images": {0: batch, 3: columns}, "widths": {0: batch}}
    program = torch.export.export(reader, example, dynamic_shapes=dynamic)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it tells where files lie on this machine
    return program


def _onnx(program: torch.export.ExportedProgram, settings: str) -> bytes:
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it, and says so at length)
    except ImportError as error:
        raise ImportError(
            "ONNX needs onnxscript, which is not installed: install crnn_ext with its extra [export]"
        ) from error
    exported = torch.onnx.export(
        program, input_names=["images", "widths"], output_names=["logits", "lengths"], verbose=False
    )
    assert exported is not None
    model: Any = exported.model_proto
    graph = model.graph
    # What the exporter notes for its own developers, half of the file, and its names of T, N and W.
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


def _difference(run: _Run, reader: _Reader, channels: int) -> float:
    """The largest difference of a logit of an image's own frames; infinity if lengths or shapes differ."""
    generator = torch.Generator().manual_seed(0)
    largest = []
    for samples, columns in _BATCHES:
        images = torch.rand(samples, channels, 32, columns, generator=generator) * 2 - 1
        widths = torch.randint(MIN_COLUMNS, columns + 1, (samples,), generator=generator)
        widths[0] = columns
        expected, expected_lengths = reader(images, widths)
        logits, lengths = run(images, widths)
        if logits.shape != expected.shape or not lengths.equal(expected_lengths):
            return float("inf")
        own = torch.arange(len(logits)).unsqueeze(1) < lengths
        largest.append((logits - expected)[own].abs().max())
    return torch.stack(largest).max().item()  # NaN if any is


@contextmanager
def _silent() -> Iterator[None]:
    """Without what torch's exporters say of their own insides."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
