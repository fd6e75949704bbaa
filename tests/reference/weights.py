"""What language model, lexicon and hot words add to a text, as their definitions say it, without any tables.

Each has `so_far(prefix)`, what the search counts for an unfinished text, and `whole(text)`. Texts are tuples
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


class Sum:
    """Weights, each times a factor."""

    def __init__(self, *terms):
        self.terms = terms

    def so_far(self, prefix):
        return sum(factor * weight.so_far(prefix) for factor, weight in self.terms)

    def whole(self, text):
        return sum(factor * weight.whole(text) for factor, weight in self.terms)


class TokenCount:
    def so_far(self, prefix):
        return len(prefix)

    whole = so_far


class BackOffModel:
    """An n-gram model as ARPA files define it: {n-gram: (log10 P, log10 back-off)}, n-grams tuples of str."""

    def __init__(self, ngrams):
        self.ngrams = ngrams
        self.order = max(map(len, ngrams))

    def log10(self, word, context):
        """log10 P(word | the words before it)."""
        ngram = (*context, word)
        if ngram in self.ngrams:
            return self.ngrams[ngram][0]
        if not context:
            return self.ngrams[("<unk>",)][0]
        return self.ngrams.get(context, (0.0, 0.0))[1] + self.log10(word, context[1:])

    def total(self, words, start, stop):
        """ln P of words start to stop, each given those before it, from <s> on."""
        named = [word if (word,) in self.ngrams else "<unk>" for word in words]
        total = 0.0
        for i in range(start, stop):
            context = tuple(named[max(0, i - self.order + 1) : i]) if self.order > 1 else ()
            total += self.log10(named[i], context)
        return total * math.log(10)


class TokenModel:
    """A back-off model whose words are the token classes' names."""

    def __init__(self, model, names):
        self.model, self.names = model, names

    def so_far(self, prefix):
        words = ["<s>", *(self.names[token] for token in prefix)]
        return self.model.total(words, 1, len(words))

    def whole(self, text):
        words = ["<s>", *(self.names[token] for token in text), "</s>"]
        return self.model.total(words, 1, len(words))


class WordModel:
    """A back-off model over words, which count when they end; {word as a tuple of tokens: its name}."""

    def __init__(self, model, names, separators):
        self.model, self.names, self.separators = model, names, separators

    def _total(self, words, end):
        names = [self.names.get(word, "<unk>") for word in words if word]
        return self.model.total(["<s>", *names, *end], 1, 1 + len(names) + len(end))

    def so_far(self, prefix):
        return self._total(words_of(prefix, self.separators)[:-1], [])

    def whole(self, text):
        return self._total(words_of(text, self.separators), ["</s>"])


class Words:
    """The words of a lexicon; other words are impossible, or cost `unknown_score` each."""

    def __init__(self, words, separators, word_score=0.0, unknown_score=None):
        self.words = set(words)
        self.begun = {word[:i] for word in words for i in range(1, len(word) + 1)}
        self.separators = separators
        self.word_score = word_score
        self.unknown_score = -INF if unknown_score is None else unknown_score

    def _finished(self, words):
        return sum(self.word_score if word in self.words else self.unknown_score for word in words if word)

    def so_far(self, prefix):
        *words, last = words_of(prefix, self.separators)
        still_known = not last or last in self.begun
        return self._finished(words) + (0.0 if still_known else self.unknown_score)

    def whole(self, text):
        return self._finished(words_of(text, self.separators))


class HotWords:
    """A nat for each token of each occurrence of a hot word, and, until it ends, of one that is being spelt.

    With separators an occurrence is a whole word, and ends with a separator or the text; without, it is any
    part of the text.
    """

    def __init__(self, words, separators=()):
        self.separators = separators
        self.words = {self._written(word) for word in words}

    def _written(self, text):
        return "".join(" " if token in self.separators else chr(0x100 + token) for token in text)

    def _tokens_of_occurrences(self, text, end):
        start = r"(?<![^ ])" if self.separators else ""
        found = {word: re.findall(f"(?={start}{re.escape(word)}{end})", text) for word in self.words}
        return sum(len(word) * len(occurrences) for word, occurrences in found.items())

    def _tokens_being_spelt(self, text):
        """Of the longest end of the text that is the beginning of an occurrence, but not all of one."""
        for start in range(len(text)):
            spelt = text[start:]
            if self.separators and text[start - 1 : start] not in ("", " "):
                continue
            # A word that lacks nothing but its separator is still being spelt.
            if any(word.startswith(spelt) and (self.separators or word != spelt) for word in self.words):
                return len(spelt)
        return 0

    def so_far(self, prefix):
        text = self._written(prefix)
        finished = self._tokens_of_occurrences(text, "(?= )" if self.separators else "")
        return finished + self._tokens_being_spelt(text)

    def whole(self, text):
        return self._tokens_of_occurrences(self._written(text), r"(?![^ ])" if self.separators else "")
