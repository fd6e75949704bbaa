"""Language model, lexicon and hot words on their way to the tensors that beam_search takes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from crnn_ext.ctc._arguments import check_number
from crnn_ext.ctc._indices import to_device
from crnn_ext.text import HotWords, Lexicon, NGramModel
from crnn_ext.text._tables import Automaton, WordTrie, concatenate

_Constraint = TypeVar("_Constraint", Lexicon, HotWords)

LexiconArgument = Lexicon | Sequence[Lexicon | None] | None
HotWordsArgument = HotWords | Sequence[HotWords | None] | None

# The state of a sample without a lexicon (csrc/beam_search/lexicon.h), and without hot words.
_NO_LEXICON = -2
_NO_HOTWORDS = -1


class _Batch(NamedTuple):
    """The distinct objects of a batch, and which of them each sample has; -1 for none."""

    distinct: list[Any]
    of_sample: list[int]


def fusion_arguments(
    lm: NGramModel | None,
    lm_weight: float,
    token_score: float,
    lexicon: LexiconArgument,
    word_score: float,
    hotwords: HotWordsArgument,
    hotword_weight: float,
    *,
    samples: int,
    classes: int,
    blank: int,
    device: torch.device,
) -> tuple[Any, ...]:
    """The operator's arguments from `lm` to `largest_step`.

    Tables lie on the device since they were first used there; those of several objects are put together.
    """
    check_number("lm_weight", lm_weight, least=0)
    check_number("token_score", token_score)
    check_number("word_score", word_score)
    check_number("hotword_weight", hotword_weight, least=0)
    lexicons = _batch("lexicon", lexicon, Lexicon, samples, classes, blank)
    hot = _batch("hotwords", hotwords, HotWords, samples, classes, blank)
    over_words = _check_model(lm, lexicons, classes, blank)
    if lm_weight == 0:  # and what the model forbids, with a weight of -inf, is as good as the rest
        lm = None
    steps = [token_score]
    model, start = [], 0
    if lm is not None:
        automaton = lm.automaton.to(device)
        model, start = _tensors(automaton), automaton.start
        step = lm_weight * lm.automaton.largest_step
        steps.append(max(step, 0.0) if over_words else step)

    lexicon_tensors = []
    if lexicons.distinct:
        trie, roots = concatenate([one.trie.to(device) for one in lexicons.distinct])
        unknown = [-math.inf if one.unknown_score is None else one.unknown_score for one in lexicons.distinct]
        scores = _of_samples(unknown, -math.inf, lexicons, torch.float64, device)
        lexicon_tensors = [
            *_tensors(trie),
            _of_samples(roots, _NO_LEXICON, lexicons, torch.int32, device),
            scores,
        ]
        steps.append(max(word_score, *unknown, 0.0))

    hot_tensors = []
    if hot.distinct:
        tables = [one.automaton.to(device) for one in hot.distinct]
        joined, first = concatenate(tables)
        starts = [table.start + begin for table, begin in zip(tables, first, strict=True)]
        hot_tensors = [*_tensors(joined), _of_samples(starts, _NO_HOTWORDS, hot, torch.int32, device)]
        steps.append(hotword_weight * max(one.automaton.largest_step for one in hot.distinct))
    words = max([len(one) for one in lexicons.distinct], default=0)
    return (
        *(model, start, over_words, lm_weight),
        *(lexicon_tensors, words, word_score),
        *(hot_tensors, hotword_weight),
        *(token_score, sum(steps)),
    )


def _batch(name: str, value: Any, kind: type[_Constraint], samples: int, classes: int, blank: int) -> _Batch:
    if isinstance(value, kind) or value is None:
        values = [value] * samples
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, one in enumerate(value):
            if one is not None and not isinstance(one, kind):
                raise TypeError(
                    f"{name}[{index}] must be a {kind.__name__} or None, and it is {type(one).__name__}"
                )
        if len(value) != samples:
            raise ValueError(
                f"{name} must be one for each of the N={samples} samples, and it has {len(value)}"
            )
        values = list(value)
    else:
        raise TypeError(
            f"{name} must be a {kind.__name__}, a sequence of them or None, and it is {type(value).__name__}"
        )
    number_of: dict[int, int] = {}
    distinct: list[_Constraint] = []
    for one in values:
        if one is None or id(one) in number_of:
            continue
        _check_classes(name, one, classes, blank)
        number_of[id(one)] = len(distinct)
        distinct.append(one)
    return _Batch(distinct, [-1 if one is None else number_of[id(one)] for one in values])


def _check_model(lm: NGramModel | None, lexicons: _Batch, classes: int, blank: int) -> bool:
    """Whether it is over words."""
    if lm is None:
        return False
    if not isinstance(lm, NGramModel):
        raise TypeError(f"lm must be an NGramModel or None, and it is {type(lm).__name__}")
    _check_classes("lm", lm, classes, blank)
    if lm.lexicon is None:
        return False
    if -1 in lexicons.of_sample or any(lexicon is not lm.lexicon for lexicon in lexicons.distinct):
        raise ValueError(
            "lexicon must be that of lm, which reads its words, for all samples: the very object, lm.lexicon"
        )
    return True


def _check_classes(name: str, one: NGramModel | Lexicon | HotWords, classes: int, blank: int) -> None:
    if one.num_classes != classes:
        raise ValueError(f"{name} is for {one.num_classes} classes, and logits has C={classes}")
    if one.blank is not None and one.blank != blank:
        raise ValueError(f"{name} is for a charset with blank {one.blank}, and blank is {blank}")


def _tensors(tables: Automaton | WordTrie) -> list[Tensor]:
    """In the order of csrc/beam_search/fusion_arguments.h."""
    parts = [tables.first_edge, tables.edge_symbol, tables.edge_target]
    if isinstance(tables, Automaton):
        return [*parts, tables.edge_weight, tables.fail_state, tables.fail_weight, tables.final_weight]
    return [*parts, tables.word_of_state]


def _of_samples(
    values: Sequence[float], none: float, batch: _Batch, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(N,): the value of each sample's object, `none` where it has none."""
    if set(batch.of_sample) == {0}:
        return torch.full((len(batch.of_sample),), values[0], dtype=dtype, device=device)
    each = [none if number < 0 else values[number] for number in batch.of_sample]
    # What travels are integers, so that doubles go as their bits.
    wide = torch.float64 if dtype == torch.float64 else torch.int64
    (arrived,) = to_device([torch.tensor(each, dtype=wide, device="cpu").view(torch.int64)], device)
    return arrived.view(wide).to(dtype)
