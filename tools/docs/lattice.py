"""Draws the CTC lattice of the text "ab" with one path and the meeting point of both passes.

python tools/docs/lattice.py     # writes docs/images/lattice.svg
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
STATES = ["-", "a", "-", "b", "-"]
FRAMES = 6
PATH = [0, 1, 1, 3, 3, 4]  # the states of "-aabb-"
MEETING = 3.5  # the forward pass covers frames 1 to 3, the backward pass frames 4 to 6
FORWARD, BACKWARD, GRAY = "#3949ab", "#ef6c00", "#9e9e9e"


def moves(state: int) -> list[int]:
    """The states of the next frame: stay, step, or skip a blank between two different labels."""
    reached = [state, state + 1]
    if STATES[state] != "-" and state + 2 < len(STATES) and STATES[state + 2] != STATES[state]:
        reached.append(state + 2)
    return [next_state for next_state in reached if next_state < len(STATES)]


def main() -> None:
    """Draws the picture."""
    matplotlib.rcParams["svg.hashsalt"] = "crnn_ext"  # the same file every time
    figure, axes = plt.subplots(figsize=(8, 3.9), layout="constrained")
    for frame in range(FRAMES - 1):
        for state in range(len(STATES)):
            for reached in moves(state):
                on_path = PATH[frame] == state and PATH[frame + 1] == reached
                color = FORWARD if frame + 1.5 < MEETING else BACKWARD
                axes.annotate(
                    "",
                    (frame + 2, -reached),
                    (frame + 1, -state),
                    arrowprops={
                        "arrowstyle": "-|>",
                        "color": color if on_path else GRAY,
                        "lw": 2.2 if on_path else 0.7,
                        "shrinkA": 11,
                        "shrinkB": 11,
                    },
                )
    for frame in range(FRAMES):
        for state, symbol in enumerate(STATES):
            on_path = PATH[frame] == state
            color = FORWARD if frame + 1 < MEETING else BACKWARD
            axes.plot(
                frame + 1,
                -state,
                "o",
                ms=21,
                mfc=color if on_path else "white",
                mec=color if on_path else GRAY,
            )
            axes.text(
                frame + 1, -state, symbol, ha="center", va="center", color="white" if on_path else "black"
            )
    axes.axvline(MEETING, ymax=0.88, color="black", ls="--", lw=1)
    axes.text(MEETING, 0.75, "meeting point", ha="center", fontsize=9)
    axes.text(1.9, 0.75, "forward pass →", ha="center", fontsize=9, color=FORWARD)
    axes.text(5.1, 0.75, "← backward pass", ha="center", fontsize=9, color=BACKWARD)
    axes.set_xticks(range(1, FRAMES + 1), [f"frame {frame}" for frame in range(1, FRAMES + 1)], fontsize=9)
    axes.set_yticks([])
    axes.set_xlim(0.5, FRAMES + 0.5)
    axes.set_ylim(-len(STATES) + 0.4, 1.1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "lattice.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
