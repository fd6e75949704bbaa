"""The operators of the pretend device. They run the CPU operators and reject what a GPU rejects."""

import functools
import re
import warnings
from importlib.resources import files
from typing import Any

import torch
from cuda_on_host import operators
from torch import Tensor

from pretend_cuda import stream

CPU = torch.device("cpu")

_device_view = torch.ops.pretend_cuda.device_view
_below_autograd = torch._C._AutoDispatchBelowAutograd

# Operators that synchronize because the size or the value of the result depends on data.
_SYNCHRONIZING_OPS = {
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "bincount",
    "equal",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
_INDEXING_OPS = {"index", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}

# Queries whether cuDNN or MIOpen computes torch's CTC loss, also with lengths on the CPU: there is neither.
_USES_LIBRARY_CTC = re.compile(r"aten::_use_(cudnn|miopen)_ctc_loss(\.\w+)?")

# Composite operators of torch that need a kernel of their own here: they dispatch to GPU kernels, or to very
# many small operators.
_COMPOSITE_OPS = re.compile(r"aten::(copy_|convolution|convolution_backward|_foreach_\w+)(\.\w+)?")


def _taking_cpu_scalars() -> set[str]:
    """Returns the operators whose GPU kernels accept zero-dimensional CPU tensors."""
    declared = files("torchgen").joinpath("packaged/ATen/native/native_functions.yaml").read_text()
    blocks = declared.split("\n- func: ")
    return {re.match(r"[\w.]+", block)[0] for block in blocks if "device_check: NoCheck" in block}


_CPU_SCALARS = _taking_cpu_scalars()


def _check_devices(op: Any, args: Any, kwargs: Any) -> None:
    elsewhere = [tensor for tensor in stream.flatten_tensors([*args, *kwargs.values()]) if not tensor.is_cuda]
    name = op._schema.name.removeprefix("aten::")
    if not elsewhere or name == "copy_":
        return
    values = [value for value in stream.flatten_tensors(args[2:3]) if not value.is_cuda]
    if name in _INDEXING_OPS and args[0].is_cuda and all(value.dim() == 0 for value in values):
        return  # torch copies CPU indices to the GPU
    overload = op._schema.overload_name
    written = stream.flatten_tensors([*args[:1], *kwargs.values()]) if op._schema.is_mutable else []
    if (f"{name}.{overload}" if overload else name) in _CPU_SCALARS and all(t.is_cuda for t in written):
        elsewhere = [tensor for tensor in elsewhere if tensor.dim() > 0 or tensor.device != CPU]
    if not elsewhere:
        return
    stream.fail(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
        f"{elsewhere[0].device}! (in {op})"
    )


def _check_call(op: Any, args: Any, kwargs: Any) -> None:
    name = op._schema.name.removeprefix("aten::")
    if name == "copy_":
        _check_copy(args[0], args[1], args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    elif name == "native_batch_norm_backward":
        _check_batch_norm(*args)
    elif name in _SYNCHRONIZING_OPS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        stream.check_sync_allowed(str(op))
    elif name in _INDEXING_OPS:
        indices = stream.flatten_tensors(args[1])
        masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
        filled = len(args) > 2 and not args[2].is_cuda  # a mask and a CPU scalar: masked_fill_
        if not all(index.is_cuda for index in indices) or (masks and not filled):
            stream.check_sync_allowed(f"{op} with {'a mask' if masks else 'indices on the CPU'}")


def _check_copy(to: Tensor, source: Tensor, non_blocking: bool) -> None:
    if to.device == source.device:
        return
    host = source if to.is_cuda else to
    if stream.capture is not None and not host.is_pinned():
        stream.fail(
            "Cannot copy between CPU and CUDA tensors during CUDA graph capture "
            "unless the CPU tensor is pinned."
        )
    if not non_blocking:
        stream.check_sync_allowed("a blocking copy")


def _check_batch_norm(grad: Tensor, maps: Tensor, *rest: Any) -> None:
    """Rejects a missing mean or deviation where torch selects a kernel that requires them."""
    _, _, _, mean, deviation, train, _, wanted = rest
    last = maps.is_contiguous() and maps.stride(1) == 1
    if maps.dim() == 4:
        last = last or maps.is_contiguous(memory_format=torch.channels_last)
    large = max(grad.numel(), maps.numel()) >= 1 << 31
    fused = wanted[0] and (train or wanted[1] or wanted[2]) and not last and not large
    if not fused and (mean is None or deviation is None):
        stream.fail("save_mean should always be defined")


def _compute(op: Any, args: Any, kwargs: Any) -> Any:
    """Runs the CPU operator on the memory of the arguments."""
    hosts: dict[int, Tensor] = {}  # id of the argument -> its host view
    arguments: dict[int, Tensor] = {}  # id of the host view -> the argument
    generators: list[tuple[torch.Generator, torch.Generator]] = []

    def to_host(value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in hosts:
                host = hosts[id(value)] = stream.host_view(value) if value.is_cuda else value
                arguments[id(host)] = value
            return hosts[id(value)]
        if isinstance(value, list | tuple):
            return [to_host(part) for part in value]
        if isinstance(value, torch.device):
            return CPU
        if isinstance(value, torch.Generator) and value.device.type == "cuda":
            generators.append((value, torch.Generator().set_state(value.get_state())))
            return generators[-1][1]
        return value

    def to_device(value: Any) -> Any:
        if isinstance(value, Tensor):
            return arguments[id(value)] if id(value) in arguments else _device_view(value)
        if isinstance(value, list | tuple):
            return type(value)(to_device(part) for part in value)
        return value

    results = op(*to_host(args), **{name: to_host(value) for name, value in kwargs.items()})
    if op._schema.is_mutable:
        for tensor in filter(lambda argument: argument.is_cuda, arguments.values()):
            torch.ops.pretend_cuda.adopt_layout(tensor, hosts[id(tensor)])
    for generator, drawn in generators:
        generator.set_state(drawn.get_state())
    return to_device(results)


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs an operator of torch on tensors of the device."""
    _check_devices(op, args, kwargs)
    _check_call(op, args, kwargs)
    return stream.launch(_compute, op, args, kwargs)


def _run_crnn_ext_op(op: Any, *args: Any) -> Any:
    """Runs an operator of crnn_ext, which checks its arguments itself."""
    return stream.launch(_redispatch, op, args, {})


def _redispatch(op: Any, args: Any, kwargs: Any) -> Any:
    return op.redispatch(torch._C.DispatchKeySet(operators.KEY), *args, **kwargs)


class _LSTM(torch.autograd.Function):
    """aten::lstm in one call, like cuDNN's. Runs the CPU operator in float32 or float64."""

    @staticmethod
    def forward(ctx: Any, options: tuple[Any, ...], state_size: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        with _below_autograd():
            ctx.inputs = [stream.host_view(tensor).detach() for tensor in tensors]
        for host, needed in zip(ctx.inputs, ctx.needs_input_grad[2:], strict=True):
            host.requires_grad_(needed)
        with torch.enable_grad():
            wide = [host if host.dtype == torch.float64 else host.float() for host in ctx.inputs]
            state, weights = wide[1 : 1 + state_size], wide[1 + state_size :]
            results = torch.ops.aten.lstm.input(wide[0], state, weights, *options)
            ctx.results = [result.to(tensors[0].dtype) for result in results]
        with _below_autograd():
            return tuple(_device_view(result.detach()) for result in ctx.results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        with _below_autograd():
            given = [stream.host_view(grad) for grad in grads]
        wanted = [host for host in ctx.inputs if host.requires_grad]
        found = iter(torch.autograd.grad(ctx.results, wanted, given, allow_unused=True))
        with _below_autograd():
            gradients = [next(found) if host.requires_grad else None for host in ctx.inputs]
            return (None, None, *(None if g is None else _device_view(g) for g in gradients))


def _lstm(frames: Tensor, state: list[Tensor], weights: list[Tensor], *options: Any) -> tuple[Tensor, ...]:
    tensors = [frames, *state, *weights]
    if not all(tensor.is_cuda for tensor in tensors):
        stream.fail("Input and parameter tensors are not at the same device")
    if len({tensor.dtype for tensor in tensors}) > 1:
        stream.fail("RNN input, state and weights must have the same dtype")
    if stream.capture is not None:
        stream.fail("the pretend device cannot capture an LSTM")
    return _LSTM.apply(options, len(state), *tensors)


def _lstm_under_autocast(*args: Any) -> Any:
    """aten::lstm under autocast: cuDNN computes in float16, whatever the dtype of autocast."""

    def half(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.half() if value.is_floating_point() and value.dtype != torch.float64 else value
        return [half(part) for part in value] if isinstance(value, list | tuple) else value

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)):
        return torch.ops.aten.lstm.input(*half(args))


_libraries: list[torch.library.Library] = []


def register() -> None:
    """Registers the kernels for the device cuda, permanently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
        _register_aten_kernels()
    operators.load()
    ours = _library("crnn_ext")
    for name in operators.names():
        op = getattr(torch.ops.crnn_ext, name).default
        ours.impl(name, functools.partial(_run_crnn_ext_op, op), "CUDA")


def _register_aten_kernels() -> None:
    _library("_").fallback(_run, "CUDA")
    aten = _library("aten")
    for name in filter(_COMPOSITE_OPS.fullmatch, torch._C._dispatch_get_all_op_names()):
        packet, _, overload = name.removeprefix("aten::").partition(".")
        op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        aten.impl(op, functools.partial(_run, op), "CUDA")
    aten.impl("record_stream", lambda *_: None, "CUDA")
    for name in filter(_USES_LIBRARY_CTC.fullmatch, torch._C._dispatch_get_all_op_names()):
        aten.impl(name.removeprefix("aten::"), lambda *_: False, "CUDA")
    for key in ("CUDA", "AutogradCUDA"):
        aten.impl("lstm.input", _lstm, key)
    aten.impl("lstm.input", _lstm_under_autocast, "AutocastCUDA")


def _library(namespace: str) -> torch.library.Library:
    _libraries.append(torch.library.Library(namespace, "IMPL"))
    return _libraries[-1]
