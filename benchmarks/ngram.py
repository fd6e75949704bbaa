"""Estimate a character n-gram model of the labels of a data set and write an ARPA file.

    python benchmarks/ngram.py lines/labels_train.txt characters.arpa --order 6

The model uses interpolated absolute discounting. With h' for h without its oldest unit:

    P(w | h) = (c(hw) - D) / c(h) + D n(h) / c(h) P(w | h')

For n-grams of the highest order or with <s>, c(hw) is the number of occurrences; for others, it is the number
of different units before the n-gram. c(h) is the sum of c(hw) over w, and n(h) the number of its terms
(Kneser and Ney, Improved backing-off for m-gram language modeling, 1995). D is n1 / (n1 + 2 n2), where n1 and
n2 count the n-grams of the same length with c = 1 and c = 2 (Ney, Essen and Kneser, On structuring
probabilistic dependences in stochastic language modeling, 1994). Unigrams interpolate with a uniform
distribution over the vocabulary: the characters, </s> and <unk>. The space is the unit <space>.
"""

import argparse
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from crnn_ext.ocr.data import DataError, open_lines

# No label contains these characters, so n-grams can be strings.
BEGIN, END = "\x02", "\x03"
UNITS = {BEGIN: "<s>", END: "</s>", " ": "<space>"}


def character_arpa(texts: Iterable[str], order: int) -> str:
    """Returns the ARPA file of a model of `texts`, for `NGramModel.from_arpa(..., space="<space>")`."""
    probabilities, weights = estimate(
        [BEGIN + unicodedata.normalize("NFC", text) + END for text in texts], order
    )

    def entry(ngram: str, units: str, log10_probability: float) -> str:
        weight = f"\t{math.log10(weights[ngram]):.7f}" if ngram in weights else ""
        return f"{log10_probability:.7f}\t{units}{weight}"

    sections: list[list[str]] = [[] for _ in range(order)]
    for ngram in sorted(probabilities.keys() - {""}):
        units = " ".join(UNITS.get(unit, unit) for unit in ngram)
        sections[len(ngram) - 1].append(entry(ngram, units, math.log10(probabilities[ngram])))
    sections[0].append(entry(END, "<unk>", math.log10(weights[""] * probabilities[""])))
    sections[0].append(entry(BEGIN, "<s>", -99))
    head = ["\\data\\", *(f"ngram {length}={len(part)}" for length, part in enumerate(sections, 1))]
    body = [["", f"\\{length}-grams:", *part] for length, part in enumerate(sections, 1)]
    return "\n".join([*head, *(line for part in body for line in part), "", "\\end\\", ""])


def estimate(lines: list[str], order: int) -> tuple[dict[str, float], dict[str, float]]:
    """Returns P(w | h) of each observed n-gram hw ("": an unseen unit), and D n(h) / c(h) of each h."""
    occurrences = [
        Counter(line[end - length : end] for line in lines for end in range(max(length, 2), len(line) + 1))
        for length in range(1, order + 1)
    ]
    probabilities, weights = {"": 1 / (len(occurrences[0]) + 1)}, {}
    for counts, longer in zip(occurrences, [*occurrences[1:], Counter[str]()], strict=True):
        before = Counter(ngram[1:] for ngram in longer)  # nothing precedes <s>
        counts = Counter({ngram: before.get(ngram, count) for ngram, count in counts.items()})
        totals: Counter[str] = Counter()
        followers: Counter[str] = Counter()
        for ngram, count in counts.items():
            totals[ngram[:-1]] += count
            followers[ngram[:-1]] += 1
        discount = _discount(counts)
        weights.update((context, discount * followers[context] / totals[context]) for context in totals)
        for ngram, count in counts.items():
            share = (count - discount) / totals[ngram[:-1]]
            probabilities[ngram] = share + weights[ngram[:-1]] * probabilities[ngram[1:]]
    return probabilities, weights


def _discount(counts: Counter[str]) -> float:
    """Returns D for n-grams of one length; 0.5 if no count is 1, because the formula would give 0."""
    once, twice = (sum(count == times for count in counts.values()) for times in (1, 2))
    return once / (once + 2 * twice) if once else 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", help="data set with the labels")
    parser.add_argument("arpa", type=Path, help="output file")
    parser.add_argument("--order", type=int, default=6, help="order of the model (default: 6)")
    arguments = parser.parse_args()
    if arguments.order < 1:
        parser.error(f"--order must be at least 1, got {arguments.order}")
    try:
        labels = open_lines(arguments.data).labels
        arguments.arpa.write_text(character_arpa(labels, arguments.order), "utf-8")
    except (DataError, OSError) as error:
        parser.error(str(error))
    print(f"{arguments.arpa}: order {arguments.order}, from {len(labels)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
