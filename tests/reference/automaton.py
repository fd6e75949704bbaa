"""Automata of language models, hot words and lexicons, traversed state by state."""

import math

import torch

OUT_OF_LEXICON = -1
"""The lexicon state inside an unknown word."""


def find_edge(edges, state, symbol):
    """The index of the state's edge for the symbol, or None."""
    first, last = edges.first_edge[state : state + 2].tolist()
    symbols = edges.edge_symbol[first:last].tolist()
    return first + symbols.index(symbol) if symbol in symbols else None


def advance(automaton, state, symbol):
    """The next state after `symbol`, and the weight of the transition."""
    weight = 0.0
    while True:
        edge = find_edge(automaton, state, symbol)
        if edge is not None:
            return int(automaton.edge_target[edge]), weight + float(automaton.edge_weight[edge])
        weight += float(automaton.fail_weight[state])
        fail_state = int(automaton.fail_state[state])
        if fail_state == state:
            return state, weight
        state = fail_state


def prefix_weights(automaton, symbols, start=None):
    """The weights of all prefixes, the empty one first, and the final weight after the last symbol."""
    state = automaton.start if start is None else start
    weights = [0.0]
    for symbol in symbols:
        state, weight = advance(automaton, state, symbol)
        weights.append(weights[-1] + weight)
    return weights, float(automaton.final_weight[state])


def lexicon_step(lexicon, state, token, word_score=0.0):
    """(next state, added score, index of the word that the token ended, or None).

    An unknown word has the index len(lexicon).
    """
    trie = lexicon.trie
    edge = find_edge(trie, state, token) if state != OUT_OF_LEXICON else None
    if edge is not None:
        return int(trie.edge_target[edge]), 0.0, None
    separator = find_edge(trie, 0, token)
    if separator is not None and int(trie.edge_target[separator]) == 0:
        return (0, *_word_end(lexicon, state, word_score))
    added = _unknown_score(lexicon) if state != OUT_OF_LEXICON else 0.0
    return OUT_OF_LEXICON, added, None


def lexicon_end(lexicon, state, word_score=0.0):
    """(score added by the end of the text, index of the word that it ended, or None)."""
    return (0.0, None) if state == 0 else _word_end(lexicon, state, word_score)


def lexicon_score(lexicon, tokens, word_score=0.0):
    """The lexicon's score of a text, -inf if a word is not allowed, and the indices of its words."""
    state, score, words = 0, 0.0, []
    for token in tokens:
        state, added, word = lexicon_step(lexicon, state, token, word_score)
        score += added
        words.append(word)
    added, word = lexicon_end(lexicon, state, word_score)
    return score + added, [index for index in (*words, word) if index is not None]


def _word_end(lexicon, state, word_score):
    if state == OUT_OF_LEXICON:  # scored when the spelling left the lexicon
        return 0.0, len(lexicon)
    word = int(lexicon.trie.word_of_state[state])
    return (word_score, word) if word >= 0 else (_unknown_score(lexicon), len(lexicon))


def _unknown_score(lexicon):
    return -math.inf if lexicon.unknown_score is None else lexicon.unknown_score


def assert_valid(automaton, num_symbols):
    """Asserts the invariants that the operators rely on."""
    assert_valid_edges(automaton, num_symbols)
    states, edges = len(automaton.fail_state), len(automaton.edge_symbol)
    assert (
        len(automaton.fail_weight) == len(automaton.final_weight) == len(automaton.first_edge) - 1 == states
    )
    assert len(automaton.edge_weight) == edges
    for weights in (automaton.edge_weight, automaton.fail_weight, automaton.final_weight):
        assert weights.dtype == torch.float32
        assert (weights < math.inf).all()  # fails for NaN too
    assert automaton.fail_state.dtype == torch.int32
    assert (automaton.fail_state >= 0).all()
    assert (automaton.fail_state <= torch.arange(states)).all()
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
    assert ((source * num_symbols + edges.edge_symbol).diff() > 0).all()  # sorted, each symbol once per state
    assert ((edges.edge_symbol >= 0) & (edges.edge_symbol < num_symbols)).all()
    assert ((edges.edge_target >= 0) & (edges.edge_target < states)).all()
