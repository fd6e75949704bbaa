"""The tables of language models, hot words and lexicons, walked state by state."""

import math

import torch

OFF = -1
"""The state of a lexicon within a word that it does not have."""


def edge_for(edges, state, symbol):
    """The number of the state's edge for the symbol; None if it has none."""
    first, last = edges.first_edge[state : state + 2].tolist()
    symbols = edges.edge_symbol[first:last].tolist()
    return first + symbols.index(symbol) if symbol in symbols else None


def step(automaton, state, symbol):
    """The state after one more symbol, and its weight."""
    weight = 0.0
    while True:
        edge = edge_for(automaton, state, symbol)
        if edge is not None:
            return int(automaton.edge_target[edge]), weight + float(automaton.edge_weight[edge])
        weight += float(automaton.fail_weight[state])
        fail_state = int(automaton.fail_state[state])
        if fail_state == state:
            return state, weight
        state = fail_state


def final(automaton, state):
    """The weight of ending in the state."""
    return float(automaton.final_weight[state])


def prefix_weights(automaton, symbols, start=None):
    """The weights of all prefixes, the empty one first, and what the end adds to the last of them."""
    state = automaton.start if start is None else start
    weights = [0.0]
    for symbol in symbols:
        state, weight = step(automaton, state, symbol)
        weights.append(weights[-1] + weight)
    return weights, final(automaton, state)


def lexicon_step(lexicon, state, token, word_score=0.0):
    """The state after one more token; what it adds; the number of the word that it ended, or None.

    An unknown word has the number len(lexicon).
    """
    trie = lexicon.trie
    edge = edge_for(trie, state, token) if state != OFF else None
    if edge is not None:
        return int(trie.edge_target[edge]), 0.0, None
    separator = edge_for(trie, 0, token)
    if separator is not None and int(trie.edge_target[separator]) == 0:
        return (0, *_word_end(lexicon, state, word_score))
    added = _unknown_score(lexicon) if state != OFF else 0.0
    return OFF, added, None


def lexicon_end(lexicon, state, word_score=0.0):
    """What the end of the text adds, and the number of the word that it ended, or None."""
    return (0.0, None) if state == 0 else _word_end(lexicon, state, word_score)


def lexicon_score(lexicon, tokens, word_score=0.0):
    """What the lexicon adds to a text, and the numbers of its words; -inf if it does not allow it."""
    state, score, words = 0, 0.0, []
    for token in tokens:
        state, added, word = lexicon_step(lexicon, state, token, word_score)
        score += added
        words.append(word)
    added, word = lexicon_end(lexicon, state, word_score)
    return score + added, [number for number in (*words, word) if number is not None]


def _word_end(lexicon, state, word_score):
    if state == OFF:  # charged when its spelling left the lexicon
        return 0.0, len(lexicon)
    word = int(lexicon.trie.word_of_state[state])
    return (word_score, word) if word >= 0 else (_unknown_score(lexicon), len(lexicon))


def _unknown_score(lexicon):
    return -math.inf if lexicon.unknown_score is None else lexicon.unknown_score


def assert_valid(automaton, num_symbols):
    """What the operators rely on."""
    assert_valid_edges(automaton, num_symbols)
    states, edges = len(automaton.fail_state), len(automaton.edge_symbol)
    assert (
        len(automaton.fail_weight) == len(automaton.final_weight) == len(automaton.first_edge) - 1 == states
    )
    assert len(automaton.edge_weight) == edges
    for weights in (automaton.edge_weight, automaton.fail_weight, automaton.final_weight):
        assert weights.dtype == torch.float32
        assert (weights < math.inf).all()  # and none is NaN
    assert automaton.fail_state.dtype == torch.int32
    numbers = torch.arange(states)
    assert (automaton.fail_state >= 0).all()
    assert ((automaton.fail_state < numbers) | (automaton.fail_state == numbers)).all()
    assert automaton.fail_state[0] == 0
    assert 0 <= automaton.start < states


def assert_valid_edges(edges, num_symbols):
    states = len(edges.first_edge) - 1
    for table in (edges.first_edge, edges.edge_symbol, edges.edge_target):
        assert table.dtype == torch.int32
        assert table.is_contiguous()
    first = edges.first_edge.long()
    assert first[0] == 0
    assert first[-1] == len(edges.edge_symbol) == len(edges.edge_target)
    degree = first.diff()
    assert (degree >= 0).all()
    source = torch.arange(states).repeat_interleave(degree)
    assert ((source * num_symbols + edges.edge_symbol).diff() > 0).all()  # ascending, each symbol once
    assert ((edges.edge_symbol >= 0) & (edges.edge_symbol < num_symbols)).all()
    assert ((edges.edge_target >= 0) & (edges.edge_target < states)).all()
