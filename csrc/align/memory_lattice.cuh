// The recursion of a text with its sums in memory: for texts of any length.
#pragma once

#include "align/strip.h"
#include "common/gpu.h"

namespace crnn::align {

// The block's threads share the pairs, and walk over them at every frame. Sums are read from one array and
// written to another, so that a frame has a single barrier.
template <class Real, class Skips>
class MemoryLattice {
 public:
  // skips: as for RegisterLattice. states: (2, S + 1), scratch
  __device__ MemoryLattice(const Strip<Real>& strip, const Skips& skips, Pair<double>* states)
      : strip_(strip), skips_(skips), states_(states) {
    each_pair([&](int64_t i) { at(0)[i] = Pair<double>::before_first_frame(i); });
    __syncthreads();
  }

  // As of RegisterLattice.
  __device__ void walk() const {
    for (int64_t t = 0; t < strip_.frames; ++t) {
      each_pair([&](int64_t i) {
        const bool has_label_below = 0 < i, has_label = i < strip_.length;
        const double below = has_label_below ? at(t)[i - 1].label : kImpossible;
        const double logit = has_label ? double(strip_.label_logit(t, i)) : kImpossible;
        Pair<double> pair = at(t)[i];
        const Word moves = advance<Word>(pair, below, has_label_below && has_label && skips_(i - 1, i),
                                         double(strip_.blank_logit(t)), logit);
        at(t + 1)[i] = pair;
        const int in_word = int(t % kFramesPerWord<Word>);
        Word& word = strip_.word(t, i);
        word = (in_word == 0 ? 0 : word) | moves << (in_word * kBitsPerFrame);
      });
      __syncthreads();
    }
  }

  // As of RegisterLattice.
  __device__ void put_last(double* blank, double* label) const {
    if (threadIdx.x != 0) return;
    *blank = at(strip_.frames)[strip_.length].blank;
    *label = at(strip_.frames)[strip_.length - 1].label;
  }

 private:
  // The sums after `steps` frames.
  __device__ Pair<double>* at(int64_t steps) const { return states_ + steps % 2 * strip_.pairs(); }

  template <class Body>
  __device__ void each_pair(const Body& body) const {
    for (int64_t i = threadIdx.x; i < strip_.pairs(); i += blockDim.x) body(i);
  }

  const Strip<Real>& strip_;
  const Skips& skips_;
  Pair<double>* states_;
};

}  // namespace crnn::align
