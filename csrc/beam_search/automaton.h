// Weighted automata over symbols (token classes, or words) in flat arrays, for host and device.
//
// A state has edges for some symbols. Where it has none for the next symbol, the walk falls back to the
// state's fail state and tries there: this is how n-grams back off, and how a search for many words at once
// goes on after a mismatch.
#pragma once

#include "common/simd.h"

namespace crnn::beam_search {

// The edges of all states, those of a state side by side in the order of their symbols.
struct Edges {
  const int32_t* first;   // (states + 1)
  const int32_t* symbol;  // (edges)
  const int32_t* target;  // (edges): the state each leads to
  int32_t symbols;        // a state with so many edges has one for every symbol

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
  const int32_t* fail_state;  // (states): below the state itself; a state that is its own takes any symbol
  const float* fail_weight;   // (states)
  const float* final_weight;  // (states): for ending there

  // The weight of the walk over one symbol, which moves the state on.
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
