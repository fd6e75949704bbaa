"""Compare crnn_ext.ctc.ctc_loss on the CPU with torch's log_softmax and ctc_loss, forward and backward.

    python benchmarks/bench_ctc_loss.py [--seconds S] [--json FILE]

First it checks correctness: relative errors of loss and gradient against torch in float64, for both. Then it
measures memory and durations: on one thread, compared with torch's loss and torch.softmax of the same tensor;
on two threads, compared with one; and with each instruction set. Everything is float32 with logits randn * 3.
Durations are medians; the calls that are compared take turns in one run.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tables import print_table
from timing import environment, medians
from torch import Tensor

from crnn_ext.ctc import ctc_loss

MAX_GRADIENT_ERROR, MAX_LOSS_ERROR = 5e-6, 1e-6


class Shape(NamedTuple):
    frames: int
    samples: int
    classes: int
    length: int

    def __str__(self) -> str:
        return ", ".join(map(str, self))


SHAPES = [
    Shape(26, 64, 37, 8),
    Shape(160, 64, 97, 40),
    Shape(80, 32, 6625, 15),
    Shape(500, 16, 32, 120),
    Shape(400, 8, 5000, 60),
    Shape(3000, 2, 64, 500),
]
LONG = Shape(8000, 1, 64, 1000)
SATURATED = Shape(590, 8, 64, 90)
ONE_WIDE_SAMPLE = Shape(400, 1, 5000, 60)
# Shapes dominated by loops over states, by rows of many classes and by rows of few classes.
INSTRUCTION_SET_SHAPES = [SHAPES[1], SHAPES[2], SHAPES[3]]
INSTRUCTION_SETS = ["default", "avx2", "avx512"]


class Problem:
    """Random logits and targets, all of full length."""

    def __init__(self, shape: Shape, blank_offset: float = 0) -> None:
        frames, samples, classes, length = shape
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(frames, samples, classes, generator=generator) * 3
        self.logits[..., 0] += blank_offset
        self.logits.requires_grad_()
        targets = torch.randint(1, classes, (samples, length), generator=generator)
        self.arguments = targets, torch.full((samples,), frames), torch.full((samples,), length)

    def crnn_ext_loss(self, logits: Tensor, reduction: str = "mean") -> Tensor:
        return ctc_loss(logits, *self.arguments, reduction=reduction)

    def torch_loss(self, logits: Tensor, reduction: str = "mean") -> Tensor:
        return F.ctc_loss(F.log_softmax(logits, -1), *self.arguments, reduction=reduction)

    def step(self, loss: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def forward_and_backward() -> None:
            loss(self.logits).backward()
            self.logits.grad = None

        return forward_and_backward


def losses_and_gradient(loss: Callable[..., Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    losses = loss(logits, "none")
    losses.sum().backward()
    assert logits.grad is not None
    return losses.detach().double(), logits.grad.double()


def accuracy(name: str, problem: Problem) -> dict[str, object]:
    exact, exact_gradient = losses_and_gradient(problem.torch_loss, problem.logits.double())
    errors: dict[str, object] = {"shape": name}
    for who, loss in (("crnn_ext", problem.crnn_ext_loss), ("torch", problem.torch_loss)):
        losses, gradient = losses_and_gradient(loss, problem.logits)
        errors[f"{who} gradient"] = float((gradient - exact_gradient).norm() / exact_gradient.norm())
        errors[f"{who} loss"] = float(((losses - exact) / exact).abs().max())
    return errors


def speed(shape: Shape, seconds: float) -> dict[str, object]:
    problem = Problem(shape)
    detached = problem.logits.detach()
    calls = {
        "crnn_ext": problem.step(problem.crnn_ext_loss),
        "torch": problem.step(problem.torch_loss),
        "softmax": lambda: torch.softmax(detached, -1),
    }
    row: dict[str, object] = {"shape": str(shape)}
    duration = medians(calls, seconds)
    row |= {f"{name} ms": 1e3 * value for name, value in duration.items()}
    row["torch / crnn_ext"] = duration["torch"] / duration["crnn_ext"]
    row["crnn_ext / softmax"] = duration["crnn_ext"] / duration["softmax"]
    return row


def scaling(shape: Shape, seconds: float) -> dict[str, object]:
    problem = Problem(shape)
    step = problem.step(problem.crnn_ext_loss)
    duration = medians({"1": step, "2": step}, seconds, lambda name: torch.set_num_threads(int(name)))
    torch.set_num_threads(1)
    return {
        "shape": str(shape),
        "1 thread ms": 1e3 * duration["1"],
        "2 threads ms": 1e3 * duration["2"],
        "ratio": duration["1"] / duration["2"],
    }


def instruction_sets(seconds: float) -> Iterable[dict[str, object]]:
    """Runs a process for each instruction set, because a process selects one only once."""
    results = {}
    for name in INSTRUCTION_SETS:
        result = subprocess.run(
            [sys.executable, __file__, "--seconds", str(seconds), "--only-instruction-set"],
            env=os.environ | {"ATEN_CPU_CAPABILITY": name},
            check=True,
            capture_output=True,
            text=True,
        )
        results[name] = json.loads(result.stdout)
    for index, shape in enumerate(INSTRUCTION_SET_SHAPES):
        yield {"shape": str(shape)} | {f"{name} ms": rows[index] for name, rows in results.items()}


def peak_rss_increase(call: Callable[[], object]) -> int | None:
    """Returns the peak growth of resident memory during a call in bytes, or None if unknown."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        before = status("VmRSS")
        call()
        return status("VmHWM") - before
    except (OSError, AttributeError):
        return None


def status(field: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def memory(shape: Shape) -> dict[str, object]:
    frames, samples, _, length = shape
    problem = Problem(shape)
    kept = []
    peak = peak_rss_increase(lambda: kept.append(problem.crnn_ext_loss(problem.logits)))
    # Only the last saved tensor is the operator's own; the others are its inputs.
    held = kept[0].grad_fn.saved_tensors[-1].nbytes
    return {
        "shape": str(shape),
        "peak MB": peak and peak / 1e6,
        "T*N*(2S+1)*10 MB": frames * samples * (2 * length + 1) * 10 / 1e6,
        "held MB": held / 1e6,
        "T*N*(S+2)*4 MB": frames * samples * (length + 2) * 4 / 1e6,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=2, help="approximate time per measurement (default: 2)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")
    parser.add_argument("--only-instruction-set", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only_instruction_set:
        problems = map(Problem, INSTRUCTION_SET_SHAPES)
        print(
            json.dumps([1e3 * medians({"": p.step(p.crnn_ext_loss)}, options.seconds)[""] for p in problems])
        )
        return 0

    results: dict[str, object] = {"environment": environment()}
    print(*(f"{name}: {value}" for name, value in environment().items()), sep="\n")
    problems = {str(shape): Problem(shape) for shape in [*SHAPES, LONG]}
    problems[f"{SATURATED} blank +30"] = Problem(SATURATED, 30)
    errors = print_table("Relative errors against float64", (accuracy(*item) for item in problems.items()))
    results["errors"] = errors
    wrong = [
        row["shape"]
        for row in errors
        if row["crnn_ext gradient"] > MAX_GRADIENT_ERROR or row["crnn_ext loss"] > MAX_LOSS_ERROR  # type: ignore[operator]
    ]
    if wrong:
        print(f"errors above the limits, no timing: {wrong}", file=sys.stderr)
        return 1
    del problems
    results["memory"] = print_table("Memory, one thread, forward", map(memory, SHAPES))
    results["speed"] = print_table("One thread", (speed(shape, options.seconds) for shape in SHAPES))
    results["scaling"] = print_table(
        "Threads", (scaling(shape, options.seconds) for shape in [*SHAPES, ONE_WIDE_SAMPLE])
    )
    results["instruction sets"] = print_table(
        "Instruction sets, one thread", instruction_sets(options.seconds)
    )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
