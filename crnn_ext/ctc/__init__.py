"""CTC operators: the loss and its module, greedy decoding, alignment and scores of given texts.

Shapes: T frames, N samples, C classes, S target length. Time first, (T, N, C), as in torch; (T, C) is one
unbatched sample, and every result then has no N.
"""

from crnn_ext.ctc.align import Alignment, align
from crnn_ext.ctc.greedy import GreedyResult, greedy_decode
from crnn_ext.ctc.log_probability import log_probability
from crnn_ext.ctc.loss import CTCLoss, ctc_loss

__all__ = [
    "Alignment",
    "CTCLoss",
    "GreedyResult",
    "align",
    "ctc_loss",
    "greedy_decode",
    "log_probability",
]
