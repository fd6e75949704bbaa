"""Trains on lines of print and reads others: error rates, time per step, and what a language model adds.

    python benchmarks/train_lines.py TRAIN VAL --output run --json result.json
    python benchmarks/train_lines.py TRAIN VAL --output run-torch --loss torch
    python benchmarks/train_lines.py TRAIN VAL --compare --json times.json

Trains on the data set TRAIN with the settings of RECIPE, made for an hour on two CPU cores, or those that
--set changes. Then the best network reads VAL: greedily, by beam search, and with a character 6-gram of the
training labels (benchmarks/ngram.py) at several weights. A weight that is chosen by these lines is a little
too good on them.

With GOMP_SPINCOUNT=10000 in the environment, threads stay awake for some microseconds when they wait for each
other, from which LSTMs gain a third of the time.

With --loss torch, torch.nn.functional.ctc_loss on log_softmax in float32 is in the place of ours; all else
stays. With --compare, both take turns for the first steps of a run, which tells how long a step takes.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from ngram import character_arpa
from timing import environment
from torch.nn import functional

from crnn_ext.ocr import BeamSearch, Recognizer, evaluate, greedy
from crnn_ext.ocr.data import open_lines
from crnn_ext.ocr.training import StepMetrics, TrainingConfig, ValidationResult, train
from crnn_ext.ocr.training.console import ConsoleLogger
from crnn_ext.text import NGramModel

RECIPE = TrainingConfig(
    width=0.5, hidden=128, epochs=26, lr=2e-3, warmup=0.06, precision="bfloat16", validate_every=438
)
BEAM = 16
ORDER = 6
WEIGHTS = (0.25, 0.5, 0.75, 1.0)
# Of a comparison. The first steps are not counted.
TURNS, STEPS, UNCOUNTED = 4, 60, 20


class Course:
    """Remembers loss, time and error rate along a run."""

    def __init__(self) -> None:
        self.steps: list[StepMetrics] = []
        self.validations: list[dict[str, object]] = []
        self.began = time.perf_counter()

    def on_train_start(self, step: int, steps: int, left_out: object) -> None:
        self.began = time.perf_counter()

    def on_message(self, text: str) -> None:
        pass

    def on_step(self, step: StepMetrics) -> None:
        self.steps.append(step)

    def on_lines_skipped(self, report: object) -> None:
        pass

    def on_validation(self, validation: ValidationResult) -> None:
        overall = validation.evaluation.metrics.overall
        self.validations.append(
            {
                "step": validation.step,
                "minutes": (time.perf_counter() - self.began) / 60,
                "loss": statistics.mean(step.loss for step in self.steps[-20:]),
                "cer": overall.cer.rate.value if overall.cer.rate else None,
            }
        )

    def on_train_end(self) -> None:
        pass


def torch_losses(logits, targets, frames, lengths):
    log_probs = logits.float().log_softmax(-1)
    return functional.ctc_loss(
        log_probs, targets.clamp(min=0), frames, lengths, reduction="none", zero_infinity=True
    )


LOSSES = {"ours": None, "torch": torch_losses}


def compared(config: TrainingConfig, device: str) -> dict[str, list[float]]:
    """The median seconds of a step in each turn of each loss."""
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    for _ in range(TURNS):
        for name, criterion in LOSSES.items():
            course, asked = Course(), count()
            with TemporaryDirectory() as folder:
                train(
                    config,
                    folder,
                    device=device,
                    callbacks=[course],
                    criterion=criterion,
                    stop=lambda asked=asked: next(asked) == STEPS,
                )
            seconds[name].append(
                statistics.median(step.seconds for step in course.steps if step.step > UNCOUNTED)
            )
            print(f"{name}: {seconds[name][-1]:.3f} s a step", flush=True)
    return seconds


def conditions(device: str) -> dict[str, object]:
    """What a result depends on."""
    return {
        **environment(),
        "threads": torch.get_num_threads(),
        "device": device,
        **{name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")},
    }


def readings(checkpoint: Path, train_labels: list[str], val: str) -> dict[str, object]:
    """The metrics of each way of decoding."""
    recognizer = Recognizer.load(checkpoint)
    lines = open_lines(val)
    with TemporaryDirectory() as folder:
        arpa = Path(folder) / "characters.arpa"
        arpa.write_text(character_arpa(train_labels, ORDER), encoding="utf-8")
        lm = NGramModel.from_arpa(arpa, recognizer.charset, space="<space>")
    charset = recognizer.charset
    ways = {"greedy": greedy, f"beam {BEAM}": BeamSearch(charset, beam_size=BEAM)}
    for weight in WEIGHTS:
        ways[f"beam {BEAM}, {ORDER}-gram, weight {weight}"] = BeamSearch(
            charset, beam_size=BEAM, lm=lm, lm_weight=weight
        )
    results = {}
    for name, decoding in ways.items():
        recognizer.decoding = decoding
        evaluation = evaluate(recognizer, lines)
        overall = evaluation.metrics.overall
        print(f"{name}: CER {overall.cer.rate.value:.2%}, WER {overall.wer.rate.value:.2%}", flush=True)
        results[name] = {**asdict(overall), "seconds": evaluation.seconds}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train")
    parser.add_argument("val")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--output", type=Path, help="the folder of the run")
    way.add_argument("--compare", action="store_true", help="both losses in turns, for some steps each")
    parser.add_argument("--loss", choices=LOSSES, default="ours")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, in JSON")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    changes = {name: json.loads(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    config = replace(RECIPE, data=arguments.train, val=arguments.val, **changes)

    if arguments.compare:
        write(
            arguments.json,
            {
                "environment": conditions(arguments.device),
                "median seconds a step": compared(config, arguments.device),
            },
        )
        return
    course = Course()
    began, cpu_began = time.perf_counter(), time.process_time()
    outcome = train(
        config,
        arguments.output,
        device=arguments.device,
        callbacks=[course, ConsoleLogger(sys.stdout)],
        criterion=LOSSES[arguments.loss],
    )
    minutes, cpu_minutes = (
        (now - then) / 60 for now, then in ((time.perf_counter(), began), (time.process_time(), cpu_began))
    )
    result = {
        "environment": conditions(arguments.device),
        "loss": arguments.loss,
        "settings": {name: value for name, value in config.to_dict().items() if name not in ("data", "val")},
        "steps": outcome.step,
        "minutes": minutes,
        "cpu minutes of the training process": cpu_minutes,
        "median seconds a step": statistics.median(step.seconds for step in course.steps),
        "course": course.validations,
        "read by the best network": readings(
            arguments.output / "best.safetensors", list(open_lines(arguments.train).labels), arguments.val
        ),
    }
    write(arguments.json, result)


def write(path: Path | None, result: dict[str, object]) -> None:
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
