// The Viterbi recursion of a text with its sums in memory, for texts of any length.
#pragma once

#include "align/text_view.h"
#include "common/gpu.h"

namespace crnn::align {

// The threads of the block share the pairs and loop over them at each frame. Sums are double-buffered, so one
// barrier per frame suffices.
template <class Real, class Skips>
class MemoryViterbi {
 public:
  // skips: see RegisterViterbi. states: (2, S + 1), scratch
  __device__ MemoryViterbi(const TextView<Real>& view, const Skips& skips, ScorePair<double>* states)
      : view_(view), skips_(skips), states_(states) {
    for_each_pair([&](int64_t i) { at(0)[i] = ScorePair<double>::before_first_frame(i); });
    __syncthreads();
  }

  // See RegisterViterbi.
  __device__ void run() const {
    for (int64_t t = 0; t < view_.frames; ++t) {
      for_each_pair([&](int64_t i) {
        const bool has_label_below = 0 < i, has_label = i < view_.length;
        const double below = has_label_below ? at(t)[i - 1].label : kImpossible;
        const double logit = has_label ? double(view_.label_logit(t, i)) : kImpossible;
        ScorePair<double> pair = at(t)[i];
        const Word moves = advance<Word>(pair, below, has_label_below && has_label && skips_(i - 1, i),
                                         double(view_.blank_logit(t)), logit);
        at(t + 1)[i] = pair;
        const int in_word = int(t % kFramesPerWord<Word>);
        Word& word = view_.word(t, i);
        word = (in_word == 0 ? 0 : word) | moves << (in_word * kBitsPerFrame);
      });
      __syncthreads();
    }
  }

  // See RegisterViterbi.
  __device__ void write_last(double* blank, double* label) const {
    if (threadIdx.x != 0) return;
    *blank = at(view_.frames)[view_.length].blank;
    *label = at(view_.frames)[view_.length - 1].label;
  }

 private:
  // The sums after `steps` frames.
  __device__ ScorePair<double>* at(int64_t steps) const { return states_ + steps % 2 * view_.pairs(); }

  template <class Body>
  __device__ void for_each_pair(const Body& body) const {
    for (int64_t i = threadIdx.x; i < view_.pairs(); i += blockDim.x) body(i);
  }

  const TextView<Real>& view_;
  const Skips& skips_;
  ScorePair<double>* states_;
};

}  // namespace crnn::align
