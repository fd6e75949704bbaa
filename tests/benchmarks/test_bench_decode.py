"""benchmarks/bench_decode.py on a small item, and with the peers that are installed."""

import json
import sys

import pytest


@pytest.fixture
def bench(monkeypatch):
    """The benchmark with one small item and without peers."""
    import bench_decode

    item = bench_decode.posteriors.peaked(60, 12)
    monkeypatch.setattr(bench_decode, "items", lambda: [item])
    monkeypatch.setattr(bench_decode, "installed", dict)
    monkeypatch.setattr(sys, "argv", ["bench_decode.py", "--seconds", "0"])
    return bench_decode


def test_without_peers(bench, monkeypatch, tmp_path, capsys):
    file = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json", str(file)])
    assert bench.main() == 0
    results = json.loads(file.read_text())
    assert len(results["texts"]) == len(results["speed"]) == len(bench.COMPARISONS)
    assert {row["note"] for row in results["texts"]} == {"not installed"}
    assert all(row["logits ms"] > 0 and row["peer ms"] is None for row in results["speed"])
    assert "pyctcdecode: not installed" in capsys.readouterr().out


@pytest.mark.parametrize(("peers_text", "status"), [([1, 2, 3], 0), (None, 1)])
def test_exit_status_if_our_text_is_less_probable(bench, monkeypatch, capsys, peers_text, status):
    (item,) = bench.items()
    best = bench.ours(item, bench.WHOLE)["alone"].labels()
    monkeypatch.setattr(bench, "installed", lambda: {"peer": "1.0"})
    monkeypatch.setattr(bench, "COMPARISONS", [bench.Comparison("peer", bench.WHOLE, bench.WHOLE, 5)])
    monkeypatch.setitem(
        bench.PEERS, "peer", lambda item, search: bench.Decoder(list, lambda result: peers_text or best)
    )
    monkeypatch.setattr(bench, "first_labels", lambda result: [1, 2, 3])
    assert bench.main() == status
    assert ("texts less probable than the peer's: 1" in capsys.readouterr().err) == (status == 1)


@pytest.mark.parametrize("peer", ["fast-ctc-decode", "flashlight-text", "pyctcdecode"])
def test_peers_find_the_same_text(bench, peer):
    from decode_peers import installed

    if peer not in installed():
        pytest.skip(f"{peer} is not installed")
    (item,) = bench.items()
    cases = [bench.Case(item, comparison, [peer]) for comparison in bench.COMPARISONS]
    rows = [case.texts() for case in cases if "peer" in case.decoders]
    assert len(rows) > 1
    assert [row["difference"] for row in rows] == pytest.approx([0] * len(rows), abs=bench.ROUNDING)
