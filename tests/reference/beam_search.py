"""Prefix beam search of one sample, slow and plain: texts are tuples, numbers are Python floats.

`brute_force` scores every text by enumerating all paths.

A *scorer* adds the scores of language model, lexicon and hot words to the log-probability of a text.
`prefix_score(prefix)` is the score during the search, `text_score(text)` the score of a complete text. Both
depend on the text alone; `reference.scorers` implements them.
"""

import itertools
import math
from collections import defaultdict
from typing import NamedTuple

INF, NAN = math.inf, math.nan


class Hypothesis(NamedTuple):
    text: tuple[int, ...] | None
    score: float
    log_prob: float


MISSING = Hypothesis(None, -INF, -INF)
INVALID = Hypothesis(None, NAN, NAN)


class SearchResult(NamedTuple):
    hypotheses: list[Hypothesis]
    """The n-best, padded with MISSING; all INVALID if a frame holds NaN or +inf."""
    margin: float
    """The smallest difference between two unequal numbers whose order decided something. If it is tiny, a
    search in another precision may decide otherwise."""
    has_ties: bool
    """Whether the order of equal scores decided something. In another precision these scores may differ,
    unless they are computed in the same way, as for texts of tokens with equal logits in every frame."""


class ZeroScorer:
    def prefix_score(self, prefix):
        return 0.0

    def text_score(self, text):
        return 0.0


ZERO_SCORER = ZeroScorer()


def log_add(*terms):
    top = max(terms)
    return top if top == -INF else top + math.log(math.fsum(math.exp(term - top) for term in terms))


def log_softmax(row):
    """All NaN if the row holds NaN or +inf, all -inf if it holds only -inf."""
    if any(math.isnan(x) or x == INF for x in row):
        return [NAN] * len(row)
    total = log_add(*row)
    return [x - total if x > -INF else -INF for x in row]


def _margin(numbers, threshold):
    """The distance from `threshold` to the nearest number that differs from it."""
    return min((abs(x - threshold) for x in numbers if x != threshold), default=INF)


def _first(ordered, count, key):
    """(the first `count` items, the margin of the cut, whether the cut separates a tie)."""
    if len(ordered) <= count:
        return ordered, INF, False
    threshold = key(ordered[count - 1])
    return ordered[:count], _margin(map(key, ordered), threshold), key(ordered[count]) == threshold


def _extending_tokens(row, blank, top_k, min_logp):
    """(the tokens that may extend prefixes in a frame, the margin of the choice)."""
    tokens = [token for token in range(len(row)) if token != blank]
    margin = INF
    if top_k is not None:
        best = sorted(tokens, key=lambda token: (-row[token], token))
        tokens, margin, _ = _first(best, top_k, row.__getitem__)
    if min_logp is not None:
        margin = min(margin, _margin(row, min_logp))
        tokens = [token for token in tokens if row[token] >= min_logp]
    return sorted(tokens), margin


class _Candidate(NamedTuple):
    score: float
    is_new: bool
    rank: int  # in the previous beam, of this prefix or of the one that it extends
    token: int
    text: tuple[int, ...]
    blank: float  # log-probability of the paths that end in the blank
    label: float  # log-probability of the paths that end in the last label

    def order(self):
        return (-self.score, self.is_new, self.rank, self.token)


def beam_search(
    log_probs,
    *,
    blank=0,
    beam_size=16,
    nbest=1,
    token_top_k=None,
    token_min_logp=None,
    beam_threshold=None,
    scorer=ZERO_SCORER,
):
    """The n-best texts of (T, C) log-probabilities, a list of lists."""
    if any(math.isnan(x) or x == INF for row in log_probs for x in row):
        return SearchResult([INVALID] * nbest, INF, False)
    margin, has_ties = INF, False
    beam = [_Candidate(0.0, True, 0, -1, (), 0.0, -INF)]  # by rank
    for row in log_probs:
        extending, closest = _extending_tokens(row, blank, token_top_k, token_min_logp)
        margin = min(margin, closest)
        known = {prefix.text: prefix for prefix in beam}

        def extended(prefix, token, row=row):
            """Log-probability of the paths that extend the prefix by the token as a further label."""
            repeated = prefix.text[-1:] == (token,)
            return row[token] + (prefix.blank if repeated else log_add(prefix.blank, prefix.label))

        candidates = []
        for rank, prefix in enumerate(beam):
            text = prefix.text
            ends_blank = row[blank] + log_add(prefix.blank, prefix.label)
            ends_label = -INF
            if text:
                ends_label = row[text[-1]] + prefix.label
                if text[:-1] in known:
                    ends_label = log_add(ends_label, extended(known[text[:-1]], text[-1]))
            score = log_add(ends_blank, ends_label) + scorer.prefix_score(text)
            candidates.append(_Candidate(score, False, rank, -1, text, ends_blank, ends_label))
            for token in extending:
                longer = (*text, token)
                if longer not in known:
                    log_prob = extended(prefix, token)
                    score = log_prob + scorer.prefix_score(longer) if log_prob > -INF else -INF
                    candidates.append(_Candidate(score, True, rank, token, longer, -INF, log_prob))

        candidates = sorted((c for c in candidates if c.score > -INF), key=_Candidate.order)
        if beam_threshold is not None and candidates:
            floor = candidates[0].score - beam_threshold
            margin = min(margin, _margin((c.score for c in candidates), floor))
            candidates = [c for c in candidates if c.score >= floor]
        beam, closest, is_tie = _first(candidates, beam_size, lambda candidate: candidate.score)
        margin, has_ties = min(margin, closest), has_ties or is_tie

    hypotheses = []
    for prefix in beam:
        log_prob = log_add(prefix.blank, prefix.label)
        hypotheses.append(Hypothesis(prefix.text, log_prob + scorer.text_score(prefix.text), log_prob))
    hypotheses = best_first(hypotheses)
    for a, b in itertools.pairwise(hypotheses[: nbest + 1]):
        margin, has_ties = min(margin, _margin([a.score], b.score)), has_ties or a.score == b.score
    return SearchResult((hypotheses + [MISSING] * nbest)[:nbest], margin, has_ties)


def best_first(hypotheses):
    """The hypotheses with a score above -inf, sorted; ties keep their order."""
    possible = [hypothesis for hypothesis in hypotheses if hypothesis.score > -INF]
    return sorted(possible, key=lambda hypothesis: -hypothesis.score)


def collapse(path, blank):
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def brute_force(log_probs, *, blank=0, scorer=ZERO_SCORER):
    """All texts of (T, C) log-probabilities, best first, each with the sum over its paths."""
    paths = defaultdict(list)
    for path in itertools.product(range(len(log_probs[0]) if log_probs else 1), repeat=len(log_probs)):
        log_prob = sum(row[label] for row, label in zip(log_probs, path, strict=True))
        paths[collapse(path, blank)].append(log_prob)
    totals = {text: log_add(*log_probs) for text, log_probs in paths.items()}
    return best_first([Hypothesis(text, p + scorer.text_score(text), p) for text, p in totals.items()])
