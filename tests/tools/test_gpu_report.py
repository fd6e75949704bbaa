"""The report of `make gpu`: aims and the table."""

import pytest
import report
from helpers.gpu_command import SMALL, WIDE, loss_row


def our_row(eager, graph, shape=SMALL, **fields):
    return loss_row("crnn_ext", shape, **{"eager ms": eager, "graph ms": graph}, **fields)


def peer_row(name, eager):
    return loss_row(name, **{"eager ms": eager})


def beam_rows(ours, theirs):
    """Rows of crnn_ext and of a peer with these fields."""
    shape = [200, 1, 5000, 10]
    contenders = {"crnn_ext": ours, "cuda_ctc_decoder": theirs}
    return [
        {"op": "beam_search", "shape": shape, "contender": name, "dtype": "float32", **fields}
        for name, fields in contenders.items()
    ]


@pytest.mark.parametrize(
    ("rows", "what", "measured", "state"),
    [
        ([our_row(0.5, 0.4), peer_row("torch", 6)], "torch / ctc_loss", "12 / 15", "met"),
        ([our_row(1, 0.5), peer_row("torch", 6)], "torch / ctc_loss", "6 / 12", "met in a graph"),
        ([our_row(1, 1), peer_row("torch", 6)], "torch / ctc_loss", "6 / 6", "missed"),
        ([loss_row("crnn_ext", note="no kernel")], "torch / ctc_loss", "-", "not measured"),
        ([our_row(1, 1), peer_row("cuDNN", 3.5)], "cuDNN / ctc_loss", "3.5 / 3.5", "met"),
        ([our_row(3, 2, WIDE, **{"floor ms": 1.5})], "ctc_loss / floor", "2 / 1.33", "met in a graph"),
        ([loss_row("crnn_ext", **{"recursion ns a frame": 61.0})], "recursion, ns a frame", "61", "missed"),
        ([loss_row("crnn_ext", **{"same bits": False})], "same bits every time", "no", "missed"),
        (
            beam_rows({"eager ms": 1, "graph ms": 0.5}, {"eager ms": 2}),
            "cuda_ctc_decoder / beam_search",
            "2 / 4",
            "met in a graph",
        ),
        (beam_rows({"log P": -20}, {"log P": -20.5}), "log P - that of cuda_ctc_decoder", "0.5", "met"),
        (beam_rows({"log P": -20}, {"log P": -19.5}), "log P - that of cuda_ctc_decoder", "-0.5", "missed"),
        (
            beam_rows({"log P": -20}, {"note": "not installed"}),
            "log P - that of cuda_ctc_decoder",
            "-",
            "not measured",
        ),
        (
            [our_row(1, 0.5) | {"op": "align"}, peer_row("forced_align", 40) | {"op": "align"}],
            "forced_align / align",
            "40 / 80",
            "met in a graph",
        ),
    ],
)
def test_aims(rows, what, measured, state):
    (aim,) = (aim for aim in report.aims(rows) if aim.what == what)
    assert (aim.measured, aim.state) == (measured, state)


def test_wrong_rows():
    rows = [
        loss_row("crnn_ext", correct=True),
        loss_row("crnn_ext", WIDE, correct=False),
        loss_row("torch", note="out of memory"),
    ]
    assert report.failures(rows) == [f"ctc_loss {tuple(WIDE)} float32: wrong"]
    assert "WRONG" in "\n".join(report.table(rows, list(report.aims(rows))))
