"""Compare crnn_ext.ctc.beam_search and greedy_decode on the CPU with decoders of other packages.

    python -m pip install --no-deps --requirement benchmarks/requirements-peers.txt
    python benchmarks/bench_decode.py [--seconds S] [--json FILE]

Peers that are not installed are reported and skipped. First it checks correctness: the exact log P of each
decoder's text, by torch's ctc_loss in float64. The exit status is 1 if a text of crnn_ext is less probable
than the peer's. Then it measures the time per item on one thread: crnn_ext in a batch of logits, in a batch
of log-probabilities and one item alone; peers decode one item at a time. Times are medians; the decoders take
turns in one run. flashlight-text needs 9 GB for the flat item with 5000 classes.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Container, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import posteriors
import torch
from decode_peers import PEERS, Decoder, Search, SkippedError, installed
from posteriors import Posteriors, log_p
from tables import print_table
from timing import environment, medians

from crnn_ext.ctc import beam_search, greedy_decode

BATCH = 32
# Rounding error of a log P over a long item in float64, in nats.
ROUNDING = 1e-9


class Comparison(NamedTuple):
    peer: str
    theirs: Search
    ours: Search
    aim: float | None
    """The least ratio of the peer's time to ours per item of a batch."""


BEST_PATH, WHOLE = Search(None), Search(25)
PROBABLE = WHOLE._replace(token_min_logp=math.log(1e-4))
TOP = WHOLE._replace(token_top_k=10, beam_threshold=10)
PYCTCDECODES_DEFAULT = WHOLE._replace(token_min_logp=-5, beam_threshold=10)
COMPARISONS = [
    Comparison("fast-ctc-decode", BEST_PATH, BEST_PATH, 1),
    Comparison("fast-ctc-decode", WHOLE, WHOLE, 5),
    Comparison("flashlight-text", WHOLE, WHOLE, 10),
    Comparison("pyctcdecode", WHOLE, WHOLE, None),
    Comparison("pyctcdecode", PYCTCDECODES_DEFAULT, WHOLE, 20),
    Comparison("fast-ctc-decode", PROBABLE, PROBABLE, 3),
    Comparison("flashlight-text", TOP, TOP, 3),
    Comparison("pyctcdecode", PYCTCDECODES_DEFAULT, PYCTCDECODES_DEFAULT, 3),
]


def items() -> Iterator[Posteriors]:
    try:
        yield posteriors.real()
    except FileNotFoundError:
        print(f"no real item: {posteriors.REAL_FILE} does not exist")
    for make in (posteriors.peaked, posteriors.flat):
        yield make(371, 29)
        yield make(500, 5000)


def first_labels(result: Any) -> list[int]:
    """The best text of the first sample of a result, batched or not."""
    first = result.tokens.reshape(-1, result.tokens.shape[-1])[0]
    return first[: result.lengths.reshape(-1)[0]].tolist()


def ours(item: Posteriors, search: Search) -> dict[str, Decoder]:
    """The decoders of crnn_ext: with a batch of BATCH copies of the item, or with the item alone."""
    if search.beam_size is None:
        decode = partial(greedy_decode, blank=item.blank)
    else:
        decode = partial(beam_search, blank=item.blank, **search._asdict())
    logits = item.scores[:, None].repeat(1, BATCH, 1)
    log_probs = logits.log_softmax(-1)
    return {
        "logits": Decoder(lambda: decode(logits), first_labels),
        "log_probs": Decoder(lambda: decode(log_probs, input_type="log_probs"), first_labels),
        "alone": Decoder(lambda: decode(item.scores), first_labels),
    }


def theirs(item: Posteriors, comparison: Comparison) -> Decoder:
    """Raises SkippedError if the comparison would not be fair."""
    least = comparison.ours.token_min_logp
    if least is not None and (item.log_probs.amax(-1) < least).any():
        # A peer may keep the best class of such a frame anyway.
        raise SkippedError("all classes of some frames are pruned")
    return PEERS[comparison.peer](item, comparison.theirs)


def exact_log_p(item: Posteriors, decoder: Decoder) -> float:
    return log_p(item.scores[:, None], [decoder.labels()], item.blank).item()


class Case:
    """One comparison on one item."""

    def __init__(self, item: Posteriors, comparison: Comparison, peers: Container[str]) -> None:
        self.item = item
        self.aim = comparison.aim
        self.decoders = ours(item, comparison.ours)
        self.heading: dict[str, object] = {
            "item": str(item),
            "our pruning": str(comparison.ours),
            "peer": comparison.peer,
            "its pruning": str(comparison.theirs),
        }
        self.note = "not installed"
        if comparison.peer in peers:
            try:
                self.decoders["peer"] = theirs(item, comparison)
                self.note = ""
            except SkippedError as reason:
                self.note = str(reason)

    def texts(self) -> dict[str, object]:
        values = {name: exact_log_p(self.item, decoder) for name, decoder in self.decoders.items()}
        peers = values.pop("peer", None)
        least = min(values.values())
        difference = None if peers is None else least - peers
        return self.heading | {"log P": least, "peer's": peers, "difference": difference, "note": self.note}

    def speed(self, seconds: float) -> dict[str, object]:
        duration = medians({name: decoder.call for name, decoder in self.decoders.items()}, seconds)
        for batched in ("logits", "log_probs"):
            duration[batched] /= BATCH
        peers = duration.get("peer")
        return {
            **self.heading,
            **{f"{name} ms": 1e3 * duration[name] for name in ("logits", "log_probs", "alone")},
            "peer ms": peers and 1e3 * peers,
            "peer / logits": peers and peers / duration["logits"],
            "peer / log_probs": peers and peers / duration["log_probs"],
            "aim": self.aim,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=1, help="approximate time per measurement (default: 1)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peers = installed()
    here = environment() | {name: peers.get(name, "not installed") for name in PEERS}
    print(*(f"{name}: {value}" for name, value in here.items()), sep="\n")
    pairs = list(itertools.product(items(), COMPARISONS))

    def cases() -> Iterable[Case]:
        """Creates the cases one at a time, because their batches are large."""
        return (Case(item, comparison, peers) for item, comparison in pairs)

    texts = print_table("Exact log P of the texts", (case.texts() for case in cases()), digits=7)
    rows = (case.speed(options.seconds) for case in cases())
    speed = print_table(f"Time per item, one thread, batches of {BATCH}", rows)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"environment": here, "texts": texts, "speed": speed}, file, indent=1)
    worse = [row for row in texts if row["difference"] is not None and row["difference"] < -ROUNDING]
    if worse:
        print(f"texts less probable than the peer's: {len(worse)}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
