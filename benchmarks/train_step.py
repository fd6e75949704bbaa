"""Compare training steps with crnn_ext.ctc.CTCLoss and with torch.nn.functional.ctc_loss.

    python benchmarks/train_step.py [--steps N] [--threads N] [--json FILE]

Two copies of a network train on the same images and labels. They take turns step by step, so that a busy
machine slows both alike. The backward pass is split at the logits, which does not change the gradient, to
time the loss (forward and backward) inside the step. For torch this includes log_softmax.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from timing import environment
from torch import Tensor, nn

import crnn_ext.ctc
from crnn_ext.models import CRNN, CRNN_res, CRNN_v2

NETWORKS = (CRNN, CRNN_v2, CRNN_res)
# (classes, image width): digits and letters; a Chinese charset of common size.
ALPHABETS = ((37, 100), (6625, 160))
SAMPLES = 16
LABEL_LENGTHS = (3, 8)

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def torch_loss(logits: Tensor, *labels: Tensor) -> Tensor:
    return nn.functional.ctc_loss(logits.log_softmax(2), *labels)


LOSSES: dict[str, Loss] = {"torch": torch_loss, "crnn_ext": crnn_ext.ctc.CTCLoss()}


class Batch(NamedTuple):
    images: Tensor
    labels: tuple[Tensor, Tensor, Tensor]  # targets, input_lengths, target_lengths


def random_batch(network: nn.Module, classes: int, width: int) -> Batch:
    shortest, longest = LABEL_LENGTHS
    images = torch.rand(SAMPLES, 1, 32, width) * 2 - 1
    targets = torch.randint(1, classes, (SAMPLES, longest))
    target_lengths = torch.randint(shortest, longest + 1, (SAMPLES,))
    return Batch(images, (targets, network.output_lengths([width] * SAMPLES), target_lengths))


class TimedTrainer:
    """A network with its optimizer and loss. Records the loss and the durations of each step."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
        self.loss = loss
        self.curve: list[float] = []
        self.step_seconds: list[float] = []
        self.loss_seconds: list[float] = []

    def step(self, batch: Batch) -> None:
        begin = time.perf_counter()
        output = self.network(batch.images)
        logits = output.detach().requires_grad_()
        before_loss = time.perf_counter()
        loss = self.loss(logits, *batch.labels)
        loss.backward()
        after_loss = time.perf_counter()
        output.backward(logits.grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step_seconds.append(time.perf_counter() - begin)
        self.loss_seconds.append(after_loss - before_loss)
        self.curve.append(loss.item())


def check(network: nn.Module, batch: Batch) -> None:
    """Checks that the first loss and its gradient equal torch's in float64, up to float32 rounding."""
    logits = network(batch.images).detach().requires_grad_()
    exact_logits = logits.detach().double().requires_grad_()
    loss, exact = LOSSES["crnn_ext"](logits, *batch.labels), torch_loss(exact_logits, *batch.labels)
    loss.backward()
    exact.backward()
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    scale = exact_logits.grad.abs().max().item()
    torch.testing.assert_close(logits.grad.double(), exact_logits.grad, rtol=1e-4, atol=1e-6 * scale)


def compare(network_class: type[nn.Module], classes: int, width: int, steps: int) -> dict[str, object]:
    torch.manual_seed(0)
    network = network_class(32, 1, classes, 256)
    batch = random_batch(network, classes, width)
    trainers = {name: TimedTrainer(copy.deepcopy(network), loss) for name, loss in LOSSES.items()}
    check(network, batch)
    for _ in range(steps):
        for trainer in trainers.values():
            trainer.step(batch)
    result: dict[str, object] = {"network": network_class.__name__, "classes": classes}
    for name, trainer in trainers.items():
        result[name] = {
            # Skip the first step, which also allocates.
            "step_ms": 1e3 * statistics.median(trainer.step_seconds[1:]),
            "loss_ms": 1e3 * statistics.median(trainer.loss_seconds[1:]),
            "curve": trainer.curve,
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="steps per loss (default: 8)")
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads (default: torch's)")
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error(f"--steps must be at least 2, got {options.steps}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    report = environment() | {"threads": torch.get_num_threads(), "samples": SAMPLES, "results": []}
    print(", ".join(f"{name} {value}" for name, value in report.items() if name != "results"))

    print(f"\n{'step, ms':>42}{'loss alone, ms':>30}{'share of step':>24}")
    pair = f"{'torch':>12}{'crnn_ext':>10}"
    print(f"network   classes {pair}{'ratio':>8}{pair}{'ratio':>8}{pair}")
    for classes, width in ALPHABETS:
        for network_class in NETWORKS:
            result = compare(network_class, classes, width, options.steps)
            report["results"].append(result)
            theirs, ours = result["torch"], result["crnn_ext"]
            line = f"{result['network']:10}{classes:7} "
            for part in ("step_ms", "loss_ms"):
                line += f"{theirs[part]:12.2f}{ours[part]:10.2f}{theirs[part] / ours[part]:8.2f}"
            shares = (side["loss_ms"] / side["step_ms"] for side in (theirs, ours))
            print(line + "{:12.2%}{:10.2%}".format(*shares), flush=True)

    for result in report["results"]:
        print(f"\n{result['network']}, {result['classes']} classes\nstep       torch    crnn_ext  difference")
        curves = zip(result["torch"]["curve"], result["crnn_ext"]["curve"], strict=True)
        for step, (theirs, ours) in enumerate(curves, start=1):
            print(f"{step:4}{theirs:12.6f}{ours:12.6f}{ours - theirs:12.1e}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
