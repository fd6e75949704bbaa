"""What language model, lexicon and hot words add to a text, as their definitions say it, without any tables.

Each has `prefix_score(prefix)`, what the search counts for an unfinished text, and `text_score(text)`. Texts are tuples
of token classes; a *separator* is a class that stands between words. Weights are in nats.
"""

import math
import re

INF = math.inf


def words_of(text, separators):
    """The words before each separator and the one behind the last, which may be empty."""
    words = [()]
    for token in text:
        if token in separators:
            words.append(())
        else:
            words[-1] += (token,)
    return words


class WeightedSum:
    """Weights, each times a factor."""

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
    """The same over words, which count when they end; names: {word as a tuple of tokens: its name}."""

    def __init__(self, model, names, separators):
        self.model, self.names, self.separators = model, names, separators

    def _score(self, words, eos):
        return self.model.score([self.names.get(word, "<unk>") for word in words if word], eos=eos)

    def prefix_score(self, prefix):
        return self._score(words_of(prefix, self.separators)[:-1], eos=False)

    def text_score(self, text):
        return self._score(words_of(text, self.separators), eos=True)


class LexiconScorer:
    """The words of a lexicon; other words are impossible, or cost `unknown_score` each."""

    def __init__(self, words, separators, word_score=0.0, unknown_score=None):
        self.words = set(words)
        self.begun = {word[:i] for word in words for i in range(1, len(word) + 1)}
        self.separators = separators
        self.word_score = word_score
        self.unknown_score = -INF if unknown_score is None else unknown_score

    def _finished(self, words):
        return sum(self.word_score if word in self.words else self.unknown_score for word in words if word)

    def prefix_score(self, prefix):
        *words, last = words_of(prefix, self.separators)
        still_known = not last or last in self.begun
        return self._finished(words) + (0.0 if still_known else self.unknown_score)

    def text_score(self, text):
        return self._finished(words_of(text, self.separators))


class HotwordScorer:
    """A nat for each token of each occurrence of a hot word, and, until it ends, of one that is being spelt.

    With separators an occurrence is a whole word, or a phrase whose separators do not count, and ends with
    a separator or the text; without, it is any part of the text.
    """

    def __init__(self, words, separators=()):
        self.separators = separators
        self.words = {self._written(word) for word in words}

    def _written(self, text):
        return "".join(" " if token in self.separators else chr(0x100 + token) for token in text)

    def _finished(self, text, end):
        start = r"(?<![^ ])" if self.separators else ""
        found = {word: re.findall(f"(?={start}{re.escape(word)}{end})", text) for word in self.words}
        return sum(_tokens(word) * len(occurrences) for word, occurrences in found.items())

    def _being_spelt(self, text):
        """The tokens of the longest end of the text that is the beginning of an occurrence, but not all."""
        for start in range(len(text)):
            spelt = text[start:]
            if self.separators and text[start - 1 : start] not in ("", " "):
                continue
            # A word that lacks nothing but its separator is still being spelt.
            if any(word.startswith(spelt) and (self.separators or word != spelt) for word in self.words):
                return _tokens(spelt)
        return 0

    def prefix_score(self, prefix):
        text = self._written(prefix)
        return self._finished(text, "(?= )" if self.separators else "") + self._being_spelt(text)

    def text_score(self, text):
        return self._finished(self._written(text), r"(?![^ ])" if self.separators else "")


def _tokens(written):
    return len(written) - written.count(" ")
