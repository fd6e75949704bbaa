// Output of a search by its thread block.
#pragma once

#include "beam_search/prefix.h"

namespace crnn::beam_search {

// Contiguous arrays; see Result in beam_search.h.
template <class Real>
struct Hypotheses {
  int64_t* tokens;   // (N, nbest, T)
  int64_t* lengths;  // (N, nbest)
  Real* scores;      // (N, nbest)
  Real* log_probs;   // (N, nbest)
};

template <class Real>
struct Hypothesis {
  int64_t length;  // -1 if missing
  int32_t node;
  Real score, log_prob;

  static __device__ Hypothesis missing(Real score) { return {-1, 0, score, score}; }
};

// Writes the hypotheses hypothesis_of(0) to hypothesis_of(nbest - 1) of sample n. Called by every thread of
// the block.
//
// nodes: (T * beam), starting with node 1
template <class Real, class HypothesisOf>
__device__ inline void write_hypotheses(const Hypotheses<Real>& all, int64_t n, int64_t nbest, int64_t frames,
                                        const Node* nodes, const HypothesisOf& hypothesis_of) {
  // All threads pad the tokens of each text.
  for (int64_t k = 0; k < nbest; ++k) {
    int64_t* tokens = all.tokens + (n * nbest + k) * frames;
    const int64_t length = maximum<int64_t>(0, hypothesis_of(int(k)).length);
    for (int64_t i = length + threadIdx.x; i < frames; i += blockDim.x) tokens[i] = -1;
  }
  // One thread per text follows its nodes.
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
