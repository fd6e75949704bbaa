"""CRNN networks for text recognition: `(N, nc, 32, W)` images to `(T, N, nclass)` logits."""

from .crnn import CRNN, CRNN_res, CRNN_v2

__all__ = ["CRNN", "CRNN_res", "CRNN_v2"]
