"""What `make gpu` makes of results: aims, and the table."""

import pytest
from helpers.gpu_command import FOLDER, SMALL, WIDE, loss_row


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import report

    return report


def of_ours(eager, graph, shape=SMALL, **fields):
    return loss_row("crnn_ext", shape, **{"eager ms": eager, "graph ms": graph}, **fields)


def of_peer(name, eager):
    return loss_row(name, **{"eager ms": eager})


def beam_rows(ours, theirs):
    """Fields of our row and of the peer's."""
    shape = [200, 1, 5000, 10]
    contenders = {"crnn_ext": ours, "cuda_ctc_decoder": theirs}
    return [
        {"op": "beam_search", "shape": shape, "contender": name, "dtype": "float32", **fields}
        for name, fields in contenders.items()
    ]


@pytest.mark.parametrize(
    ("rows", "what", "measured", "state"),
    [
        ([of_ours(0.5, 0.4), of_peer("torch", 6)], "torch / ctc_loss", "12 / 15", "met"),
        ([of_ours(1, 0.5), of_peer("torch", 6)], "torch / ctc_loss", "6 / 12", "met in a graph"),
        ([of_ours(1, 1), of_peer("torch", 6)], "torch / ctc_loss", "6 / 6", "missed"),
        ([loss_row("crnn_ext", note="no kernel")], "torch / ctc_loss", "-", "not measured"),
        ([of_ours(1, 1), of_peer("cuDNN", 3.5)], "cuDNN / ctc_loss", "3.5 / 3.5", "met"),
        ([of_ours(3, 2, WIDE, **{"floor ms": 1.5})], "ctc_loss / floor", "2 / 1.33", "met in a graph"),
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
            [of_ours(1, 0.5) | {"op": "align"}, of_peer("forced_align", 40) | {"op": "align"}],
            "forced_align / align",
            "40 / 80",
            "met in a graph",
        ),
    ],
)
def test_aims(report, rows, what, measured, state):
    (aim,) = (aim for aim in report.aims(rows) if aim.what == what)
    assert (aim.measured, aim.state) == (measured, state)


def test_wrong_rows(report):
    rows = [
        loss_row("crnn_ext", correct=True),
        loss_row("crnn_ext", WIDE, correct=False),
        loss_row("torch", note="out of memory"),
    ]
    assert report.wrong(rows) == [f"ctc_loss {tuple(WIDE)} float32: wrong"]
    assert "WRONG" in "\n".join(report.table(rows, list(report.aims(rows))))
