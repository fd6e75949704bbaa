"""CTC operators: loss, greedy decoding, beam search, forced alignment, log-probabilities of texts.

Shapes: T frames, N samples, C classes, S target length. Logits are time first, (T, N, C), as in torch.
(T, C) is one unbatched sample; its results have no dimension N.
"""

from crnn_ext.ctc.align import Alignment, align
from crnn_ext.ctc.beam_search import BeamResult, beam_search
from crnn_ext.ctc.decoder import BeamSearchDecoder, Hypothesis
from crnn_ext.ctc.greedy import GreedyResult, greedy_decode
from crnn_ext.ctc.log_probability import log_probability
from crnn_ext.ctc.loss import CTCLoss, ctc_loss

__all__ = [
    "Alignment",
    "BeamResult",
    "BeamSearchDecoder",
    "CTCLoss",
    "GreedyResult",
    "Hypothesis",
    "align",
    "beam_search",
    "ctc_loss",
    "greedy_decode",
    "log_probability",
]
