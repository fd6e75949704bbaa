"""Pruning of a beam search over two frames, worked out by hand."""

import math

INF = math.inf

ROWS = [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]
"""The probabilities of two frames; class 0 is the blank."""

CASES = [
    ({}, [(2,), (1, 2), (1,), (), (2, 1)]),
    ({"token_top_k": 1}, [(2,), (1, 2), (1,), ()]),
    ({"token_top_k": 2}, [(2,), (1, 2), (1,), (), (2, 1)]),
    ({"token_min_logp": math.log(0.25)}, [(2,), (1, 2), (1,), ()]),
    ({"token_min_logp": math.log(0.6)}, [(2,), ()]),
    ({"token_min_logp": 0.0}, [()]),
    ({"token_min_logp": -INF}, [(2,), (1, 2), (1,), (), (2, 1)]),
    # After frame 0, the probabilities are 0.5 for (), 0.3 and 0.2; after frame 1, if all prefixes are
    # kept, 0.51, 0.21, 0.19, 0.05 and 0.04. If (2,) is pruned in frame 0, its probability is 0.35.
    ({"beam_threshold": math.log(2.55)}, [(2,), (1, 2)]),
    ({"beam_threshold": math.log(2.3)}, [(2,), (1, 2), (1,)]),
    ({"beam_threshold": math.log(1.8)}, [(2,), (1, 2)]),
    ({"beam_threshold": 0.0}, [(2,)]),
    ({"beam_threshold": INF}, [(2,), (1, 2), (1,), (), (2, 1)]),
    ({"beam_size": 1, "nbest": 1}, [(2,)]),
]
"""(options, the texts of the result, best first)."""
