// The results of a search, as its block writes them.
#pragma once

#include "beam_search/prefix.h"

namespace crnn::beam_search {

// All contiguous; see beam_search.h.
template <class Real>
struct Hypotheses {
  int64_t* tokens;   // (N, nbest, T)
  int64_t* lengths;  // (N, nbest)
  Real* scores;      // (N, nbest)
  Real* log_probs;   // (N, nbest)
};

template <class Real>
struct Hypothesis {
  int64_t length;  // -1 if it is missing
  int32_t node;
  Real score, log_prob;

  static __device__ Hypothesis missing(Real score) { return {-1, 0, score, score}; }
};

// Writes the n-best of sample n, of which hypothesis_of(k) is number k. Every thread of the block calls it.
//
// nodes: (T * beam), from node number 1 on
template <class Real, class HypothesisOf>
__device__ inline void write_hypotheses(const Hypotheses<Real>& all, int64_t n, int64_t nbest, int64_t frames,
                                        const Node* nodes, const HypothesisOf& hypothesis_of) {
  // What is behind each text, by all threads together.
  for (int64_t k = 0; k < nbest; ++k) {
    int64_t* tokens = all.tokens + (n * nbest + k) * frames;
    const int64_t length = maximum<int64_t>(0, hypothesis_of(int(k)).length);
    for (int64_t i = length + threadIdx.x; i < frames; i += blockDim.x) tokens[i] = -1;
  }
  // Each text by a thread of its own: its nodes are read one after the other, those of many texts at once.
  for (int64_t k = threadIdx.x; k < nbest; k += blockDim.x) {
    const int64_t at = n * nbest + k;
    const Hypothesis<Real> hypothesis = hypothesis_of(int(k));
    all.lengths[at] = hypothesis.length;
    all.scores[at] = hypothesis.score;
    all.log_probs[at] = hypothesis.log_prob;
    int32_t node = hypothesis.node;
    for (int64_t i = hypothesis.length - 1; i >= 0; --i) {
      all.tokens[at * frames + i] = nodes[node - 1].token;
      node = nodes[node - 1].parent;
    }
  }
}

}  // namespace crnn::beam_search
