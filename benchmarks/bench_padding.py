"""Measure the cost of padding invariance in the networks.

    python benchmarks/bench_padding.py [--threads N] [--seconds S] [--json FILE]

Each network reads the same padded batch in two ways that take turns: with the widths of the images, so that
padding does not change the results, and without, so that padding counts as image. The widest image is 1.25
times as wide as the narrowest, the largest ratio that the recognizer allows in a batch.
"""

import argparse
import json
from pathlib import Path

import torch
from timing import environment, medians

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2

SAMPLES, WIDEST, CLASSES, HIDDEN = 8, 640, 100, 256
WIDTHS = torch.linspace(WIDEST / 1.25, WIDEST, SAMPLES).long()
FACTORS = (1.0, 0.5, 0.25)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: torch's)")
    parser.add_argument("--seconds", type=float, default=20.0, help="time per measurement (default: 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    print(
        f"{SAMPLES} images of {WIDTHS[0]} to {WIDEST} columns, {arguments.threads} threads; "
        "time without widths, and ratio of the time with widths to it"
    )
    results = []
    for network_type in (CRNN, CRNN_v2, CRNN_res):
        for factor in FACTORS:
            network = network_type(32, 1, CLASSES, HIDDEN, width=factor)
            images = torch.rand(SAMPLES, 1, 32, WIDEST) * 2 - 1
            for training in (False, True):
                network.train(training)
                with torch.no_grad():
                    seconds = medians(
                        {
                            "with": lambda network=network, images=images: network(images, WIDTHS),
                            "without": lambda network=network, images=images: network(images),
                        },
                        arguments.seconds,
                    )
                result = {
                    "network": network_type.__name__,
                    "width": factor,
                    "mode": "training" if training else "evaluation",
                    "seconds": seconds,
                    "ratio": seconds["with"] / seconds["without"],
                }
                results.append(result)
                print(
                    f"{result['network']:8} width {factor:<4} {result['mode']:10} "
                    f"{seconds['without'] * 1e3:7.1f} ms  ratio {result['ratio']:.3f}",
                    flush=True,
                )
    if arguments.json:
        content = {"environment": {**environment(), "threads": arguments.threads}, "results": results}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
