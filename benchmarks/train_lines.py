"""Train on text lines and evaluate: error rates, time per step, and the gain from a language model.

    python benchmarks/train_lines.py TRAIN VAL --output run --json result.json
    python benchmarks/train_lines.py TRAIN VAL --output run-torch --loss torch
    python benchmarks/train_lines.py TRAIN VAL --compare --json times.json

Trains on the data set TRAIN with the settings of RECIPE, meant for an hour on two CPU cores; --set changes
them. Then the best network reads VAL greedily, by beam search, and by beam search with a character 6-gram
model of the training labels (benchmarks/ngram.py) at several weights. Choosing a weight on VAL slightly
overestimates the accuracy.

With GOMP_SPINCOUNT=10000 in the environment, waiting threads spin for some microseconds before they sleep,
which saves a third of the time of LSTMs.

--loss torch replaces the loss by torch.nn.functional.ctc_loss on log_softmax in float32 and changes nothing
else. With --compare, both losses take turns for the first steps of a run, to compare the time per step.
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
# For --compare. The first steps of a turn are not counted.
TURNS, STEPS, WARMUP_STEPS = 4, 60, 20


class History:
    """Records loss, time and error rate during a run."""

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


def compare_losses(config: TrainingConfig, device: str) -> dict[str, list[float]]:
    """Returns the median seconds per step in each turn of each loss."""
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    for _ in range(TURNS):
        for name, criterion in LOSSES.items():
            history, polls = History(), count()
            with TemporaryDirectory() as folder:
                train(
                    config,
                    folder,
                    device=device,
                    callbacks=[history],
                    criterion=criterion,
                    stop=lambda polls=polls: next(polls) == STEPS,
                )
            seconds[name].append(
                statistics.median(step.seconds for step in history.steps if step.step > WARMUP_STEPS)
            )
            print(f"{name}: {seconds[name][-1]:.3f} s per step", flush=True)
    return seconds


def run_environment(device: str) -> dict[str, object]:
    """The hardware and software that a result depends on."""
    return {
        **environment(),
        "threads": torch.get_num_threads(),
        "device": device,
        **{name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")},
    }


def evaluate_decodings(checkpoint: Path, train_labels: list[str], val: str) -> dict[str, object]:
    """Returns the metrics of each decoding method."""
    recognizer = Recognizer.load(checkpoint)
    lines = open_lines(val)
    with TemporaryDirectory() as folder:
        arpa = Path(folder) / "characters.arpa"
        arpa.write_text(character_arpa(train_labels, ORDER), encoding="utf-8")
        lm = NGramModel.from_arpa(arpa, recognizer.charset, space="<space>")
    charset = recognizer.charset
    decodings = {"greedy": greedy, f"beam {BEAM}": BeamSearch(charset, beam_size=BEAM)}
    for weight in WEIGHTS:
        decodings[f"beam {BEAM}, {ORDER}-gram, weight {weight}"] = BeamSearch(
            charset, beam_size=BEAM, lm=lm, lm_weight=weight
        )
    results = {}
    for name, decoding in decodings.items():
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
    parser.add_argument("train", metavar="TRAIN", help="training data set")
    parser.add_argument("val", metavar="VAL", help="validation data set")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--output", type=Path, metavar="FOLDER", help="train and write the run to this folder")
    mode.add_argument("--compare", action="store_true", help="compare the time per step of both losses")
    parser.add_argument("--loss", choices=LOSSES, default="ours", help="(default: ours)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting; VALUE is JSON"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
    arguments = parser.parse_args()
    changes = {name: json.loads(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    config = replace(RECIPE, data=arguments.train, val=arguments.val, **changes)

    if arguments.compare:
        write(
            arguments.json,
            {
                "environment": run_environment(arguments.device),
                "median seconds a step": compare_losses(config, arguments.device),
            },
        )
        return
    history = History()
    began, cpu_began = time.perf_counter(), time.process_time()
    outcome = train(
        config,
        arguments.output,
        device=arguments.device,
        callbacks=[history, ConsoleLogger(sys.stdout)],
        criterion=LOSSES[arguments.loss],
    )
    minutes, cpu_minutes = (
        (now - then) / 60 for now, then in ((time.perf_counter(), began), (time.process_time(), cpu_began))
    )
    result = {
        "environment": run_environment(arguments.device),
        "loss": arguments.loss,
        "settings": {name: value for name, value in config.to_dict().items() if name not in ("data", "val")},
        "steps": outcome.step,
        "minutes": minutes,
        "cpu minutes of the training process": cpu_minutes,
        "median seconds a step": statistics.median(step.seconds for step in history.steps),
        "course": history.validations,
        "read by the best network": evaluate_decodings(
            arguments.output / "best.safetensors", list(open_lines(arguments.train).labels), arguments.val
        ),
    }
    write(arguments.json, result)


def write(path: Path | None, result: dict[str, object]) -> None:
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
