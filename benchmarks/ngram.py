"""A character n-gram model of the labels of a data set: interpolated absolute discounting, in an ARPA file.

    python benchmarks/ngram.py lines/labels_train.txt characters.arpa --order 6

After Ney, Essen and Kneser, On structuring probabilistic dependences in stochastic language modelling, 1994:

    P(w | h) = (c(hw) - D) / c(h) + D n(h) / c(h) P(w | h')

c counts n-grams, n(h) is the number of different units behind h, h' is h without its oldest unit, and D is
n1 / (n1 + 2 n2), of the n-grams of that length that occur once and twice. Below the unigrams all units of the
vocabulary are equally probable: the characters, </s> and <unk>. The space is the unit <space>.
"""

import argparse
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from crnn_ext.ocr.data import DataError, open_lines

# Characters that no label holds, so that n-grams are strings.
BEGIN, END = "\x02", "\x03"
UNITS = {BEGIN: "<s>", END: "</s>", " ": "<space>"}


def character_arpa(texts: Iterable[str], order: int) -> str:
    """The ARPA file of texts, each a line; to be read with `NGramModel.from_arpa(..., space="<space>")`."""
    lines = [BEGIN + unicodedata.normalize("NFC", text) + END for text in texts]
    vocabulary = sorted(set("".join(lines)) - {BEGIN})
    uniform = 1 / (len(vocabulary) + 1)  # <unk> too
    probabilities, weights = {"": uniform}, {}
    by_length = []
    for length in range(1, order + 1):
        counts = Counter(
            line[end - length : end] for line in lines for end in range(max(length, 2), len(line) + 1)
        )
        totals: Counter[str] = Counter()
        followers: Counter[str] = Counter()
        for ngram, count in counts.items():
            totals[ngram[:-1]] += count
            followers[ngram[:-1]] += 1
        discount = _discount(counts)
        for context, total in totals.items():
            weights[context] = discount * followers[context] / total
        for ngram, count in counts.items():
            share = (count - discount) / totals[ngram[:-1]]
            probabilities[ngram] = share + weights[ngram[:-1]] * probabilities[ngram[1:]]
        by_length.append(sorted(counts))

    def entry(log10_probability: float, units: str, context: str) -> str:
        weight = f"\t{math.log10(weights[context]):.7f}" if context in weights else ""
        return f"{log10_probability:.7f}\t{units}{weight}"

    sections = [
        [
            entry(math.log10(probabilities[ngram]), " ".join(UNITS.get(unit, unit) for unit in ngram), ngram)
            for ngram in ngrams
        ]
        for ngrams in by_length
    ]
    sections[0] += [entry(math.log10(weights[""] * uniform), "<unk>", END), entry(-99, "<s>", BEGIN)]
    head = ["\\data\\", *(f"ngram {length}={len(part)}" for length, part in enumerate(sections, 1))]
    body = [["", f"\\{length}-grams:", *part] for length, part in enumerate(sections, 1)]
    return "\n".join([*head, *(line for part in body for line in part), "", "\\end\\", ""])


def _discount(counts: Counter[str]) -> float:
    """Of n-grams of one length; 0.5 where none occurs once, as the formula would leave nothing for others."""
    once, twice = (sum(count == times for count in counts.values()) for times in (1, 2))
    return once / (once + 2 * twice) if once else 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", help="whose labels are the texts")
    parser.add_argument("arpa", type=Path, help="the file to write")
    parser.add_argument("--order", type=int, default=6, help="units in the longest n-grams (6)")
    arguments = parser.parse_args()
    if arguments.order < 1:
        parser.error(f"--order must be 1 or more, and it is {arguments.order}")
    try:
        labels = open_lines(arguments.data).labels
        arguments.arpa.write_text(character_arpa(labels, arguments.order), "utf-8")
    except (DataError, OSError) as error:
        parser.error(str(error))
    print(f"{arguments.arpa}: order {arguments.order}, from {len(labels)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
