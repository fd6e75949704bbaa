"""Draws the charts of README.md and the documentation from committed results.

python tools/docs/charts.py     # writes docs/images/loss.svg and docs/images/decoding.svg
"""

import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"
LOSS = RESULTS / "cpu-amd-epyc-2026-11-24.json"
DECODING = RESULTS / "cpu-amd-epyc-decode-2026-11-25.json"

COLORS = {
    "crnn_ext": "#3949ab",
    "torch": "#ef6c00",
    "fast-ctc-decode": "#ef6c00",
    "flashlight-text": "#8d6e63",
    "pyctcdecode": "#90a4ae",
}
HEIGHT = 0.38  # of a bar, where two bars fill a group


def draw_bars(groups: list[tuple[str, dict[str, float]]], title: str, path: Path) -> None:
    """Horizontal bars in milliseconds on a logarithmic axis, a group of contenders for each label."""
    count = sum(len(times) for _, times in groups)
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.26 * count), layout="constrained")
    position, ticks, seen = 0.0, [], set()
    for label, times in groups:
        fastest = times["crnn_ext"]
        begin = position
        for name, milliseconds in times.items():
            bars = axes.barh(
                position, milliseconds, HEIGHT, color=COLORS[name], label=None if name in seen else name
            )
            seen.add(name)
            ratio = "" if name == "crnn_ext" else f"   {milliseconds / fastest:.3g} x"
            axes.bar_label(bars, [f" {milliseconds:.3g} ms{ratio}"], fontsize=8)
            position += HEIGHT
        ticks.append(((begin + position - HEIGHT) / 2, label))
        position += HEIGHT
    axes.set_yticks([tick for tick, _ in ticks], [label for _, label in ticks], fontsize=9)
    axes.set_xscale("log")
    axes.margins(x=0.22)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds, logarithmic; shorter is better", fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(seen), frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def loss_groups(results: dict) -> Iterator[tuple[str, dict[str, float]]]:
    """Times of forward and backward by shape."""
    for row in results["speed"]:
        frames, samples, classes, length = row["shape"].split(", ")
        label = f"T={frames}, N={samples}, C={classes}, S={length}"
        yield label, {"crnn_ext": row["crnn_ext ms"], "torch": row["torch ms"]}


def decoding_groups(results: dict) -> Iterator[tuple[str, dict[str, float]]]:
    """Times an item by peer, where the peer prunes and crnn_ext has the same pruning."""
    for row in results["speed"]:
        pruning = row["its pruning"]
        if pruning == row["our pruning"] and pruning not in ("none", "best path") and row["peer ms"]:
            label = f"{row['item']}\n{pruning}"
            yield label, {"crnn_ext": row["log_probs ms"], row["peer"]: row["peer ms"]}


def main() -> None:
    """Draws both charts."""
    matplotlib.rcParams["svg.hashsalt"] = "crnn_ext"  # the same file from the same results
    IMAGES.mkdir(exist_ok=True)
    loss, decoding = (json.loads(path.read_text()) for path in (LOSS, DECODING))
    draw_bars(
        list(loss_groups(loss)), "ctc_loss: forward and backward, float32, one thread", IMAGES / "loss.svg"
    )
    draw_bars(
        list(decoding_groups(decoding)),
        "beam_search: one item, beam 25, one thread; both sides prune alike",
        IMAGES / "decoding.svg",
    )


if __name__ == "__main__":
    main()
