"""What a run says: the aims beside what was measured, and the table that is printed last."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from rows import NOT_CHOSEN, NOT_INSTALLED, Row

PEERS = {
    "ctc_loss": ["torch", "cuDNN", "optax"],
    "greedy_decode": ["torch.argmax"],
    "beam_search": ["cuda_ctc_decoder", "blanks skipped"],
    "align": ["forced_align"],
    "log_probability": ["torch"],
    "one sample": ["forced_align"],
}
TITLES = {
    "ctc_loss": "ctc_loss, forward and backward (T, N, C, S)",
    "greedy_decode": "greedy_decode (T, N, C)",
    "beam_search": "beam_search, beside torchaudio's (T, N, C, beam)",
    "align": "align (T, N, C, S), beside forced_align sample by sample",
    "log_probability": "log_probability of K texts a sample (T, N, C, S, K), beside torch's loss of K copies",
    "one sample": "ctc_loss of one sample, forward and backward, beside its best path (T, 1, C, S)",
}

# Where few classes leave the loss to its recursion, and where many make it a matter of memory.
SMALL_LOSSES = [[26, 64, 37, 8], [160, 64, 97, 40], [500, 64, 32, 120]]
WIDE_LOSSES = [[183, 90, 10241, 29], [80, 256, 6625, 15]]
MAX_STATES, MAX_RECURSION_NS = 128, 60
# Of the mean log P of the same texts, in nats.
ROUNDING = 1e-6


class Aim(NamedTuple):
    """What was measured beside what it should be."""

    what: str
    shape: list[int]
    aim: str
    measured: str
    state: str


def find(rows: list[Row], op: str, shape: list[int], contender: str, dtype: str = "float32") -> Row:
    """Empty where there is none."""
    wanted = {"op": op, "shape": shape, "contender": contender, "dtype": dtype}
    return next((row for row in rows if wanted.items() <= row.items()), {})


def faster(what: str, least: float, ours: Row, other: Row) -> Aim:
    """other / ours in time is at least that: for ours as Python calls it, and in a CUDA graph."""
    ratios = {kind: theirs / mine for kind, mine, theirs in _times(ours, other)}
    return _aim(what, ours, f">= {least:g}", ratios, lambda ratio: ratio >= least)


def within(what: str, most: float, ours: Row, other: Row) -> Aim:
    """ours / other in time is at most that."""
    ratios = {kind: mine / theirs for kind, mine, theirs in _times(ours, other)}
    return _aim(what, ours, f"<= {most:g}", ratios, lambda ratio: ratio <= most)


def _times(ours: Row, other: Row) -> Iterator[tuple[str, float, float]]:
    """(kind, ours, other's): a graph beside the other's graph where it has one, which not every peer can."""
    for kind in ("eager", "graph"):
        mine, theirs = ours.get(f"{kind} ms"), other.get(f"{kind} ms", other.get("eager ms"))
        if mine is not None and theirs is not None:
            yield kind, mine, theirs


def _aim(what: str, ours: Row, aim: str, values: dict[str, float], reached: Callable[[float], bool]) -> Aim:
    measured = " / ".join(f"{value:.3g}" for value in values.values())
    states = {kind: reached(value) for kind, value in values.items()}
    if not values:
        state = "not measured"
    elif states.get("eager", False):
        state = "met"
    else:
        state = "met in a graph" if any(states.values()) else "missed"
    return Aim(what, ours["shape"], aim, measured or "-", state)


def aims(rows: list[Row]) -> Iterator[Aim]:
    for row in rows:
        if row["contender"] != "crnn_ext" or row["dtype"] != "float32":
            continue
        if row["op"] == "greedy_decode":
            argmax = find(rows, row["op"], row["shape"], "torch.argmax")
            yield within("greedy_decode / torch.argmax", 1.2, row, argmax)
        elif row["op"] == "beam_search":
            yield from _aims_of_beam_search(rows, row)
        elif row["op"] == "align":
            yield faster("forced_align / align", 50, row, find(rows, "align", row["shape"], "forced_align"))
        elif row["op"] == "ctc_loss":
            yield from _aims_of_loss(rows, row)


def _aims_of_loss(rows: list[Row], ours: Row) -> Iterator[Aim]:
    shape = ours["shape"]
    if shape in SMALL_LOSSES:
        yield faster("torch / ctc_loss", 10, ours, find(rows, "ctc_loss", shape, "torch"))
    cudnn = find(rows, "ctc_loss", shape, "cuDNN")
    if "eager ms" in cudnn:
        yield faster("cuDNN / ctc_loss", 3, ours, cudnn)
    if shape in WIDE_LOSSES:
        floor = {"eager ms": ours["floor ms"]} if "floor ms" in ours else {}
        yield within("ctc_loss / floor", 1.5, ours, floor)
    if 2 * shape[3] + 1 <= MAX_STATES:
        key = "recursion ns a frame"
        yield _aim(
            "recursion, ns a frame",
            ours,
            f"<= {MAX_RECURSION_NS}",
            {"eager": ours[key]} if key in ours else {},
            lambda nanoseconds: nanoseconds <= MAX_RECURSION_NS,
        )
    same = ours.get("same bits")
    state = {None: "not measured", True: "met", False: "missed"}[same]
    yield Aim("same bits every time", shape, "yes", {None: "-", True: "yes", False: "no"}[same], state)


def _aims_of_beam_search(rows: list[Row], ours: Row) -> Iterator[Aim]:
    for peer in PEERS["beam_search"]:
        theirs = find(rows, "beam_search", ours["shape"], peer)
        yield faster(f"{peer} / beam_search", 3, ours, theirs)
        known = "log P" in ours and "log P" in theirs
        difference = {"eager": ours["log P"] - theirs["log P"]} if known else {}
        yield _aim(f"log P - that of {peer}", ours, ">= 0", difference, lambda nats: nats >= -ROUNDING)


def wrong(rows: list[Row]) -> list[str]:
    """Where our operators failed, or were not correct."""
    return [
        f"{row['op']} {tuple(row['shape'])} {row['dtype']}: "
        + ("wrong" if row.get("correct") is False else row["note"])
        for row in rows
        if row["contender"] == "crnn_ext" and (row.get("correct") is False or "note" in row)
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _cells(rows: list[Row], ours: Row, peers: list[str]) -> list[str]:
    eager, graph, floor = (ours.get(f"{name} ms") for name in ("eager", "graph", "floor"))
    fastest = min((value for value in (eager, graph) if value is not None), default=None)
    cells = [
        ", ".join(map(str, ours["shape"])),
        ours["dtype"] + (" WRONG" if ours.get("correct") is False else ""),
        _ms(eager),
        _ms(graph),
        _ms(floor),
        _ms(fastest / floor if fastest and floor else None),
        _ms(1e3 * fastest / ours["shape"][0] if fastest else None),
    ]
    for peer in peers:
        theirs = find(rows, ours["op"], ours["shape"], peer, ours["dtype"])
        time = theirs.get("eager ms")
        if time is None:
            note = theirs.get("note", "-")
            cells.append(note if note in ("-", NOT_INSTALLED, NOT_CHOSEN) else "failed")
        else:
            cells.append(f"{time:.3g} ({time / eager:.3g}x)" if eager else _ms(time))
    return cells


def _aligned(lines: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def table(rows: list[Row], reached: list[Aim]) -> Iterator[str]:
    """Ours, the floor, the distance to it; each peer, with its time as a multiple of ours (both eager).

    The time a frame, which is what a recursion over frames is made of, and the distance are of the faster of
    eager and graph.
    """
    yield "\nfloor: memory traffic at the bandwidth of a copy; (x): a peer's time over ours, both eager"
    for op, peers in PEERS.items():
        of_op = [row for row in rows if row["op"] == op]
        if not of_op:
            continue
        head = ["shape", "dtype", "eager ms", "graph ms", "floor ms", "x floor", "us a frame"]
        lines = [_cells(rows, row, peers) for row in of_op if row["contender"] == "crnn_ext"]
        yield f"\n{TITLES[op]}"
        yield from _aligned([head + [f"{peer} ms" for peer in peers], *lines])
    # Once for each reason, however many shapes it holds for.
    notes = {(row["op"], row["contender"], row["note"]): None for row in rows if "note" in row}
    yield from (f"{op}, {contender}: {note}" for op, contender, note in notes)
    lines = [[aim.what, ", ".join(map(str, aim.shape)), aim.aim, aim.measured, aim.state] for aim in reached]
    if lines:
        yield "\nAims: as Python calls it / in a CUDA graph"
        yield from _aligned([["what", "shape", "aim", "measured", "state"], *lines])
