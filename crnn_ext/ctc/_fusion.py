"""Converts language model, lexicon and hot words to the tensors that the beam_search operator takes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from crnn_ext._arguments import check_number, check_type
from crnn_ext.ctc._indices import to_device
from crnn_ext.text import HotWords, Lexicon, NGramModel
from crnn_ext.text._tables import Automaton, WordTrie, concatenate

_Constraint = TypeVar("_Constraint", Lexicon, HotWords)

LexiconArgument = Lexicon | Sequence[Lexicon | None] | None
HotWordsArgument = HotWords | Sequence[HotWords | None] | None

# The states of a sample without lexicon (csrc/beam_search/lexicon.h) and without hot words.
_NO_LEXICON = -2
_NO_HOTWORDS = -1


class _PerSample(NamedTuple):
    """The distinct objects of a batch, and the index of each sample's object (-1: none)."""

    objects: list[Any]
    indices: list[int]


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

    Each object's tables are copied to a device once and cached there. The tables of several lexicons or hot
    words are concatenated.
    """
    check_number("lm_weight", lm_weight, minimum=0)
    check_number("token_score", token_score)
    check_number("word_score", word_score)
    check_number("hotword_weight", hotword_weight, minimum=0)
    lexicons = _per_sample("lexicon", lexicon, Lexicon, samples, classes, blank)
    hot = _per_sample("hotwords", hotwords, HotWords, samples, classes, blank)
    over_words = _check_model(lm, lexicons, classes, blank)
    if lm_weight == 0:  # 0 * -inf would be NaN: what the model forbids is then allowed
        lm = None
    largest_steps = [token_score]
    lm_tensors, lm_start = [], 0
    if lm is not None:
        automaton = lm.automaton.to(device)
        lm_tensors, lm_start = _tensors(automaton), automaton.start
        step = lm_weight * lm.automaton.largest_step
        # Not every token completes a word, so a model over words may add 0.
        largest_steps.append(max(step, 0.0) if over_words else step)

    lexicon_tensors = []
    if lexicons.objects:
        trie, roots = concatenate([one.trie.to(device) for one in lexicons.objects])
        unknown = [-math.inf if one.unknown_score is None else one.unknown_score for one in lexicons.objects]
        lexicon_tensors = [
            *_tensors(trie),
            _values_per_sample(roots, _NO_LEXICON, lexicons, torch.int32, device),
            _values_per_sample(unknown, -math.inf, lexicons, torch.float64, device),
        ]
        largest_steps.append(max(word_score, *unknown, 0.0))

    hotword_tensors = []
    if hot.objects:
        automata = [one.automaton.to(device) for one in hot.objects]
        tables, first_states = concatenate(automata)
        starts = [one.start + first for one, first in zip(automata, first_states, strict=True)]
        start_tensor = _values_per_sample(starts, _NO_HOTWORDS, hot, torch.int32, device)
        hotword_tensors = [*_tensors(tables), start_tensor]
        largest_steps.append(hotword_weight * max(one.automaton.largest_step for one in hot.objects))
    words = max([len(one) for one in lexicons.objects], default=0)
    return (
        *(lm_tensors, lm_start, over_words, lm_weight),
        *(lexicon_tensors, words, word_score),
        *(hotword_tensors, hotword_weight),
        *(token_score, sum(largest_steps)),
    )


def _per_sample(
    name: str, value: Any, kind: type[_Constraint], samples: int, classes: int, blank: int
) -> _PerSample:
    if isinstance(value, kind) or value is None:
        values = [value] * samples
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, one in enumerate(value):
            check_type(f"{name}[{index}]", one, (kind, type(None)), f"a {kind.__name__} or None")
        if len(value) != samples:
            raise ValueError(
                f"{name} must have one element for each of the {samples} samples, got {len(value)}"
            )
        values = list(value)
    else:
        raise TypeError(
            f"{name} must be a {kind.__name__}, a sequence of them or None, got {type(value).__name__}"
        )
    index_of: dict[int, int] = {}
    objects: list[_Constraint] = []
    for one in values:
        if one is None or id(one) in index_of:
            continue
        _check_classes(name, one, classes, blank)
        index_of[id(one)] = len(objects)
        objects.append(one)
    return _PerSample(objects, [-1 if one is None else index_of[id(one)] for one in values])


def _check_model(lm: NGramModel | None, lexicons: _PerSample, classes: int, blank: int) -> bool:
    """Checks the language model; returns whether it is over words."""
    if lm is None:
        return False
    check_type("lm", lm, NGramModel, "an NGramModel or None")
    _check_classes("lm", lm, classes, blank)
    if lm.lexicon is None:
        return False
    if -1 in lexicons.indices or any(lexicon is not lm.lexicon for lexicon in lexicons.objects):
        raise ValueError("lexicon must be lm.lexicon (the same object) for all samples: lm is over its words")
    return True


def _check_classes(name: str, one: NGramModel | Lexicon | HotWords, classes: int, blank: int) -> None:
    if one.num_classes != classes:
        raise ValueError(f"{name} must be for logits with {classes} classes, got {one.num_classes}")
    if one.blank is not None and one.blank != blank:
        raise ValueError(f"{name} must be for a charset with blank {blank}, got {one.blank}")


def _tensors(tables: Automaton | WordTrie) -> list[Tensor]:
    """The tables in the order of csrc/beam_search/fusion_arguments.h."""
    parts = [tables.first_edge, tables.edge_symbol, tables.edge_target]
    if isinstance(tables, Automaton):
        return [*parts, tables.edge_weight, tables.fail_state, tables.fail_weight, tables.final_weight]
    return [*parts, tables.word_of_state]


def _values_per_sample(
    values: Sequence[float], default: float, batch: _PerSample, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(N,): the value of each sample's object; `default` for samples without one."""
    if set(batch.indices) == {0}:
        return torch.full((len(batch.indices),), values[0], dtype=dtype, device=device)
    per_sample = [default if index < 0 else values[index] for index in batch.indices]
    # to_device copies integers, so doubles are copied as their bits.
    wide = torch.float64 if dtype == torch.float64 else torch.int64
    (copied,) = to_device([torch.tensor(per_sample, dtype=wide, device="cpu").view(torch.int64)], device)
    return copied.view(wide).to(dtype)
