"""Scorers of language model, lexicon and hot words by definition, without tables.

`prefix_score(prefix)` is the score of an incomplete text during the search, `text_score(text)` that of a
complete one. Texts are tuples of token classes; a *separator* is a class between words. Scores are in nats.
"""

import math
import re

INF = math.inf


def words_of(text, separators):
    """The words before each separator and the word after the last one; each may be empty."""
    words = [()]
    for token in text:
        if token in separators:
            words.append(())
        else:
            words[-1] += (token,)
    return words


class WeightedSum:
    """A sum of scorers; terms: (factor, scorer) pairs."""

    def __init__(self, *terms):
        self.terms = terms

    def prefix_score(self, prefix):
        return sum(factor * scorer.prefix_score(prefix) for factor, scorer in self.terms)

    def text_score(self, text):
        return sum(factor * scorer.text_score(text) for factor, scorer in self.terms)


class TokenCountScorer:
    def prefix_score(self, prefix):
        return len(prefix)

    text_score = prefix_score


class TokenLMScorer:
    """A `reference.ngram.BackoffModel` over the names of the token classes."""

    def __init__(self, model, names):
        self.model, self.names = model, names

    def _score(self, text, eos):
        return self.model.score([self.names[token] for token in text], eos=eos)

    def prefix_score(self, prefix):
        return self._score(prefix, eos=False)

    def text_score(self, text):
        return self._score(text, eos=True)


class WordLMScorer:
    """A BackoffModel over words, scored when a word ends; names: {word as a tuple of tokens: its name}."""

    def __init__(self, model, names, separators):
        self.model, self.names, self.separators = model, names, separators

    def _score(self, words, eos):
        return self.model.score([self.names.get(word, "<unk>") for word in words if word], eos=eos)

    def prefix_score(self, prefix):
        return self._score(words_of(prefix, self.separators)[:-1], eos=False)

    def text_score(self, text):
        return self._score(words_of(text, self.separators), eos=True)


class LexiconScorer:
    """`word_score` for each word of the lexicon, `unknown_score` (None: -inf) for each other word."""

    def __init__(self, words, separators, word_score=0.0, unknown_score=None):
        self.words = set(words)
        self.prefixes = {word[:i] for word in words for i in range(1, len(word) + 1)}
        self.separators = separators
        self.word_score = word_score
        self.unknown_score = -INF if unknown_score is None else unknown_score

    def _score(self, words):
        return sum(self.word_score if word in self.words else self.unknown_score for word in words if word)

    def prefix_score(self, prefix):
        *words, last = words_of(prefix, self.separators)
        may_be_known = not last or last in self.prefixes
        return self._score(words) + (0.0 if may_be_known else self.unknown_score)

    def text_score(self, text):
        return self._score(words_of(text, self.separators))


class HotwordScorer:
    """One nat per token of each occurrence of a hot word, and of the partial match at the end of a prefix.

    With separators, an occurrence is a whole word or phrase that ends at a separator or at the end of the
    text; separators inside a phrase do not count. Without separators, it is any part of the text.
    """

    def __init__(self, words, separators=()):
        self.separators = separators
        self.words = {self._as_str(word) for word in words}

    def _as_str(self, text):
        return "".join(" " if token in self.separators else chr(0x100 + token) for token in text)

    def _complete_score(self, text, end):
        start = r"(?<![^ ])" if self.separators else ""
        found = {word: re.findall(f"(?={start}{re.escape(word)}{end})", text) for word in self.words}
        return sum(_num_tokens(word) * len(occurrences) for word, occurrences in found.items())

    def _partial_score(self, text):
        """The number of tokens in the longest suffix of the text that begins an occurrence."""
        for start in range(len(text)):
            suffix = text[start:]
            if self.separators and text[start - 1 : start] not in ("", " "):
                continue
            # With separators, a word is partial until its separator follows.
            if any(word.startswith(suffix) and (self.separators or word != suffix) for word in self.words):
                return _num_tokens(suffix)
        return 0

    def prefix_score(self, prefix):
        text = self._as_str(prefix)
        return self._complete_score(text, "(?= )" if self.separators else "") + self._partial_score(text)

    def text_score(self, text):
        return self._complete_score(self._as_str(text), r"(?![^ ])" if self.separators else "")


def _num_tokens(text):
    return len(text) - text.count(" ")
