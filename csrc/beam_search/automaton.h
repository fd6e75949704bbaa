// Weighted automata over symbols (token classes or words) as flat arrays, for host and device.
//
// If a state has no edge for the next symbol, the walk moves to its fail state and tries there. Fail states
// implement the back-off of n-grams and the mismatches of an Aho-Corasick search.
#pragma once

#include "common/simd.h"

namespace crnn::beam_search {

// The edges of all states in CSR form: grouped by state, sorted by symbol.
struct Edges {
  const int32_t* first;   // (states + 1)
  const int32_t* symbol;  // (edges)
  const int32_t* target;  // (edges): the state each leads to
  int32_t symbols;        // a state with this many edges has one for every symbol

  // The edge of a state for a symbol; -1 if there is none.
  CRNN_INLINE int32_t find(int32_t state, int32_t wanted) const {
    int32_t low = first[state];
    const int32_t end = first[state + 1];
    if (end - low == symbols) return low + wanted;
    for (int32_t high = end; low < high;) {
      const int32_t middle = low + (high - low) / 2;
      if (symbol[middle] < wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < end && symbol[low] == wanted ? low : -1;
  }
};

// Weights are natural logarithms and add up.
struct Automaton {
  Edges edges;
  const float* edge_weight;   // (edges)
  const int32_t* fail_state;  // (states): less than the state; or the state itself, which consumes any symbol
  const float* fail_weight;   // (states)
  const float* final_weight;  // (states): added at the end of the text

  // Moves the state on by a symbol and returns the weight.
  CRNN_INLINE double step(int32_t* state, int32_t symbol) const {
    double weight = 0;
    for (;;) {
      const int32_t edge = edges.find(*state, symbol);
      if (edge >= 0) {
        *state = edges.target[edge];
        return weight + double(edge_weight[edge]);
      }
      const int32_t next = fail_state[*state];
      weight += double(fail_weight[*state]);
      if (next == *state) return weight;
      *state = next;
    }
  }
};

}  // namespace crnn::beam_search
