"""n-gram models as dictionaries: backoff by definition, ARPA files, random and estimated models."""

import math
from collections import Counter

from hypothesis import strategies as st

LN10 = math.log(10)


class BackoffModel:
    """ngrams: {tuple of words: (log10 of the probability, log10 of the backoff weight)}."""

    def __init__(self, order, ngrams):
        self.order = order
        self.ngrams = ngrams

    def __repr__(self):
        return self.arpa()

    def log10_prob(self, word, context):
        context = context[max(0, len(context) - self.order + 1) :]
        ngram = (*context, word)
        if ngram in self.ngrams:
            return self.ngrams[ngram][0]
        if not context:
            return self.ngrams[("<unk>",)][0] if ("<unk>",) in self.ngrams else -100.0
        _, backoff = self.ngrams.get(context, (None, 0.0))
        return backoff + self.log10_prob(word, context[1:])

    def score(self, words, bos=True, eos=True):
        """The log-probability in nats."""
        history = ("<s>",) if bos else ()
        total = 0.0
        for word in [*words, *["</s>"] * eos]:
            if (word,) not in self.ngrams:
                word = "<unk>"
            total += self.log10_prob(word, history)
            history = (*history, word)
        return total * LN10

    def arpa(self):
        """The model as the text of an ARPA file."""
        by_order = [
            {ngram: weights for ngram, weights in self.ngrams.items() if len(ngram) == order}
            for order in range(1, self.order + 1)
        ]
        lines = ["\\data\\", *(f"ngram {order}={len(part)}" for order, part in enumerate(by_order, 1)), ""]
        for order, part in enumerate(by_order, 1):
            lines.append(f"\\{order}-grams:")
            for ngram, (log_prob, backoff) in part.items():
                weight = f"\t{backoff}" if order < self.order and backoff else ""
                lines.append(f"{log_prob}\t{' '.join(ngram)}{weight}")
            lines.append("")
        return "\n".join([*lines, "\\end\\", ""])


@st.composite
def backoff_models(draw, for_kenlm=False):
    """Models over letters, pruned at random: prefixes and suffixes of an n-gram may be missing.

    KenLM rejects unigram models and models that lack a prefix of an n-gram. It reserves room for few n-grams
    with a missing suffix; n-grams of other words make that room larger. Such an n-gram must not get a
    probability above 1 by backoff.
    """
    order = draw(st.integers(2 if for_kenlm else 1, 5))
    letters = "abcd"[: draw(st.integers(1, 4))]
    words = [*letters, *["<unk>"] * draw(st.booleans())]
    random = draw(st.randoms(use_true_random=False))

    def weights(length, word):
        log_prob = -99.0 if word == "<s>" else random.choice([0.0, -3.0, *[-4 * random.random()] * 8])
        backoff = random.choice([0.0, 0.0, -1.0, 0.0 if for_kenlm else 0.5, -2 * random.random()])
        return log_prob, backoff if length < order else 0.0

    ngrams = {(word,): weights(1, word) for word in [*words, "<s>", "</s>"]}
    for length in range(2, order + 1):
        for _ in range(draw(st.integers(0, 12))):
            inner = [random.choice(words) for _ in range(length - 2)]
            ngram = (random.choice([*words, "<s>"]), *inner, random.choice([*words, "</s>"]))
            if not for_kenlm or ngram[:-1] in ngrams:
                ngrams[ngram] = weights(length, ngram[-1])
    if for_kenlm:
        others = map(chr, range(0x4E00, 0x4E00 + 40))
        ngrams.update(((word,) * length, (-1.0, 0.0)) for word in others for length in range(1, order + 1))
    return BackoffModel(order, ngrams)


def estimate_model(order, sentences, discount=0.5):
    """A model of these sequences of words, estimated by absolute discounting."""
    counts = Counter()
    for sentence in sentences:
        words = ("<s>", *sentence, "</s>")
        for end in range(2, len(words) + 1):
            counts.update(
                words[max(0, end - length) : end] for length in range(1, order + 1) if length <= end
            )
    totals = Counter()
    followers = {}
    for ngram, count in counts.items():
        totals[ngram[:-1]] += count
        followers.setdefault(ngram[:-1], []).append(ngram[-1])

    ngrams = {
        ("<s>",): [-99.0, 0.0],
        ("<unk>",): [math.log10(discount * len(followers[()]) / totals[()]), 0.0],
    }
    model = BackoffModel(order, ngrams)
    for ngram in sorted(counts, key=len):
        ngrams[ngram] = [math.log10((counts[ngram] - discount) / totals[ngram[:-1]]), 0.0]
    for context in sorted(followers, key=len):
        if context:
            left = discount * len(followers[context]) / totals[context]
            lower = sum(10 ** model.log10_prob(word, context[1:]) for word in followers[context])
            ngrams[context][1] = math.log10(left / (1 - lower))
    return model
