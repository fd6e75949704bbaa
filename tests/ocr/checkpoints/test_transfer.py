"""Transfer of a trained network to another charset."""

import pytest
import torch

pytest.importorskip("PIL")

from crnn_ext.ocr import Architecture, Checkpoint, Preprocessing
from crnn_ext.ocr.checkpoints.transfer import last_layer, transfer
from crnn_ext.text import Charset


def checkpoint(characters="abé", blank=1):
    torch.manual_seed(0)
    charset = Charset(characters, blank)
    architecture = Architecture("CRNN", charset.num_classes, nh=8, width=0.05)
    return Checkpoint(architecture.build().eval(), architecture, charset, Preprocessing())


def test_transfer_keeps_shared_logits():
    old = checkpoint()
    new = Charset("xéa", blank=3)
    moved = transfer(old, new)
    assert (moved.kept, moved.added, moved.dropped) == ("éa", "x", "b")
    images = torch.randn(2, 1, 32, 40)
    before, after = old.network(images), moved.network.eval()(images)
    for character in "éa":
        classes = old.charset.encode(character)[0], new.encode(character)[0]
        torch.testing.assert_close(after[..., classes[1]], before[..., classes[0]])
    torch.testing.assert_close(after[..., new.blank], before[..., old.charset.blank])


def test_transfer_added_characters_get_mean_bias():
    old = checkpoint()
    moved = transfer(old, Charset("abéxy", blank=0))
    bias = last_layer(old.network).bias[old.charset.encode("abé")[0]].mean()
    added = last_layer(moved.network).bias[Charset("abéxy").encode("xy")[0]]
    torch.testing.assert_close(added, bias.expand(2))


def test_transfer_only_blank_shared():
    old = checkpoint()
    moved = transfer(old, Charset("xyz"))
    assert moved.kept == ""
    torch.testing.assert_close(
        last_layer(moved.network).weight[0], last_layer(old.network).weight[old.charset.blank]
    )
    assert torch.isfinite(last_layer(moved.network).bias).all()


def test_transfer_composing_characters_stay_separate():
    old = checkpoint("e\u0301x"[0] + "x" + "\u0301", blank=0)  # a letter and an accent as separate characters
    moved = transfer(old, Charset(["e", "\u0301"], blank=0))
    assert moved.kept == "e\u0301"
    ours, theirs = last_layer(moved.network).weight, last_layer(old.network).weight
    torch.testing.assert_close(ours[1:], theirs[[1, 3]])
    assert moved.network.training
    assert not any(
        parameter is other for parameter in moved.network.parameters() for other in old.network.parameters()
    )
