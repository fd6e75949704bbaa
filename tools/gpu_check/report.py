"""The report of a run: aims compared with measurements, and the final table."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from rows import NOT_CHOSEN, NOT_INSTALLED, Row

BEAM_SEARCH_PEERS = ["cuda_ctc_decoder", "blanks skipped"]
# Titles of the tables; by default, the name of the operator.
TITLES = {
    "ctc_loss": "ctc_loss, forward and backward (T, N, C, S)",
    "greedy_decode": "greedy_decode (T, N, C)",
    "beam_search": "beam_search and torchaudio's (T, N, C, beam)",
    "align": "align (T, N, C, S), and forced_align sample by sample",
    "log_probability": "log_probability of K texts per sample (T, N, C, S, K), and torch's loss of K copies",
    "one sample": "ctc_loss of one sample, forward and backward, and its best path (T, 1, C, S)",
}

# Shapes with few classes, dominated by the recursion, and with many, dominated by memory traffic.
SMALL_LOSSES = [[26, 64, 37, 8], [160, 64, 97, 40], [500, 64, 32, 120]]
WIDE_LOSSES = [[183, 90, 10241, 29], [80, 256, 6625, 15]]
MAX_STATES, MAX_RECURSION_NS = 128, 60
# Rounding error of the mean log P of equal texts, in nats.
ROUNDING = 1e-6


class Aim(NamedTuple):
    """A measurement and its aim."""

    what: str
    shape: list[int]
    aim: str
    measured: str
    state: str


def find(rows: list[Row], op: str, shape: list[int], contender: str, dtype: str = "float32") -> Row:
    """Returns the row, or an empty one."""
    wanted = {"op": op, "shape": shape, "contender": contender, "dtype": dtype}
    return next((row for row in rows if wanted.items() <= row.items()), {})


def _times(ours: Row, other: Row) -> Iterator[tuple[str, float, float]]:
    """Yields (kind, our time, other time). A peer without a graph is represented by its eager time."""
    for kind in ("eager", "graph"):
        mine, theirs = ours.get(f"{kind} ms"), other.get(f"{kind} ms", other.get("eager ms"))
        if mine is not None and theirs is not None:
            yield kind, mine, theirs


def _aim(what: str, ours: Row, aim: str, values: dict[str, float], is_met: Callable[[float], bool]) -> Aim:
    measured = " / ".join(f"{value:.3g}" for value in values.values())
    states = {kind: is_met(value) for kind, value in values.items()}
    if not values:
        state = "not measured"
    elif states.get("eager", False):
        state = "met"
    else:
        state = "met in a graph" if any(states.values()) else "missed"
    return Aim(what, ours["shape"], aim, measured or "-", state)


def _speedup(what: str, least: float, ours: Row, other: Row) -> Aim:
    """The other time over ours must be at least `least`."""
    ratios = {kind: theirs / mine for kind, mine, theirs in _times(ours, other)}
    return _aim(what, ours, f">= {least:g}", ratios, lambda ratio: ratio >= least)


def _slowdown(what: str, most: float, ours: Row, other: Row) -> Aim:
    """Our time over the other must be at most `most`."""
    ratios = {kind: mine / theirs for kind, mine, theirs in _times(ours, other)}
    return _aim(what, ours, f"<= {most:g}", ratios, lambda ratio: ratio <= most)


def aims(rows: list[Row]) -> Iterator[Aim]:
    for ours in rows:
        if ours["contender"] != "crnn_ext" or ours["dtype"] != "float32":
            continue
        peer = partial(find, rows, ours["op"], ours["shape"])
        match ours["op"]:
            case "greedy_decode":
                yield _slowdown("greedy_decode / torch.argmax", 1.2, ours, peer("torch.argmax"))
            case "beam_search":
                yield from _beam_search_aims(ours, peer)
            case "align":
                yield _speedup("forced_align / align", 50, ours, peer("forced_align"))
            case "ctc_loss":
                yield from _loss_aims(ours, peer)


def _loss_aims(ours: Row, peer: Callable[[str], Row]) -> Iterator[Aim]:
    shape = ours["shape"]
    if shape in SMALL_LOSSES:
        yield _speedup("torch / ctc_loss", 10, ours, peer("torch"))
    if "eager ms" in peer("cuDNN"):
        yield _speedup("cuDNN / ctc_loss", 3, ours, peer("cuDNN"))
    if shape in WIDE_LOSSES:
        floor = {"eager ms": ours["floor ms"]} if "floor ms" in ours else {}
        yield _slowdown("ctc_loss / floor", 1.5, ours, floor)
    if 2 * shape[3] + 1 <= MAX_STATES:
        key = "recursion ns a frame"
        yield _aim(
            "recursion, ns a frame",
            ours,
            f"<= {MAX_RECURSION_NS}",
            {"eager": ours[key]} if key in ours else {},
            lambda nanoseconds: nanoseconds <= MAX_RECURSION_NS,
        )
    measured, state = {None: ("-", "not measured"), True: ("yes", "met"), False: ("no", "missed")}[
        ours.get("same bits")
    ]
    yield Aim("same bits every time", shape, "yes", measured, state)


def _beam_search_aims(ours: Row, peer: Callable[[str], Row]) -> Iterator[Aim]:
    for name in BEAM_SEARCH_PEERS:
        theirs = peer(name)
        yield _speedup(f"{name} / beam_search", 3, ours, theirs)
        known = "log P" in ours and "log P" in theirs
        difference = {"eager": ours["log P"] - theirs["log P"]} if known else {}
        yield _aim(f"log P - that of {name}", ours, ">= 0", difference, lambda nats: nats >= -ROUNDING)


def failures(rows: list[Row]) -> list[str]:
    """Returns the rows of crnn_ext that failed or are wrong."""
    return [
        f"{row['op']} {tuple(row['shape'])} {row['dtype']}: "
        + ("wrong" if row.get("correct") is False else row["note"])
        for row in rows
        if row["contender"] == "crnn_ext" and (row.get("correct") is False or "note" in row)
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _cells(rows: list[Row], ours: Row, peers: list[str]) -> list[str]:
    eager, graph, floor = (ours.get(f"{name} ms") for name in ("eager", "graph", "floor"))
    fastest = min((value for value in (eager, graph) if value is not None), default=None)
    cells = [
        ", ".join(map(str, ours["shape"])),
        ours["dtype"] + (" WRONG" if ours.get("correct") is False else ""),
        *map(_number, (eager, graph, floor)),
        _number(fastest / floor if fastest and floor else None),
        _number(1e3 * fastest / ours["shape"][0] if fastest else None),
    ]
    for peer in peers:
        theirs = find(rows, ours["op"], ours["shape"], peer, ours["dtype"])
        time = theirs.get("eager ms")
        if time is None:
            note = theirs.get("note", "-")
            cells.append(note if note in ("-", NOT_INSTALLED, NOT_CHOSEN) else "failed")
        else:
            cells.append(f"{time:.3g} ({time / eager:.3g}x)" if eager else _number(time))
    return cells


def _align_columns(lines: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def table(rows: list[Row], judged: list[Aim]) -> Iterator[str]:
    """Yields the lines of the table: our times, the floor and the peers, then the aims.

    "x floor" and "us per frame" are of the faster of eager and graph.
    """
    yield "\nfloor: memory traffic at the bandwidth of a copy; (x): a peer's time over ours, both eager"
    head = ["shape", "dtype", "eager ms", "graph ms", "floor ms", "x floor", "us per frame"]
    for op in dict.fromkeys([*TITLES, *(row["op"] for row in rows)]):
        of_op = [row for row in rows if row["op"] == op]
        contenders = list(dict.fromkeys(row["contender"] for row in of_op))
        if "crnn_ext" not in contenders:
            continue
        peers = [name for name in contenders if name != "crnn_ext"]
        lines = [_cells(rows, row, peers) for row in of_op if row["contender"] == "crnn_ext"]
        yield f"\n{TITLES.get(op, op)}"
        yield from _align_columns([head + [f"{peer} ms" for peer in peers], *lines])
    # Each note once, not per shape.
    notes = {(row["op"], row["contender"], row["note"]): None for row in rows if "note" in row}
    yield from (f"{op}, {contender}: {note}" for op, contender, note in notes)
    lines = [[aim.what, ", ".join(map(str, aim.shape)), aim.aim, aim.measured, aim.state] for aim in judged]
    if lines:
        yield "\nAims: eager / in a CUDA graph"
        yield from _align_columns([["what", "shape", "aim", "measured", "state"], *lines])
