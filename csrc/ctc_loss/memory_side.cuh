// One side of the recursion with its states in memory: for targets of any length.
#pragma once

#include "common/gpu.h"
#include "ctc_loss/strip.h"

namespace crnn::ctc_loss {

// Of both sides and two frames, the blank and the label of each pair.
constexpr int64_t kStatesPerPair = 2 * 2 * 2;

// kThreads threads share a side's pairs, and walk over them at every frame. States are read from one array
// and written to another, so that a frame has a single barrier.
template <class Real, int kThreads, class Skips>
class MemorySide {
 public:
  // thread: its number in the block; the first kThreads are alpha, the others beta. skips: as for
  // RegisterSide. states: (kStatesPerPair, S + 1), scratch
  __device__ MemorySide(const Strip<Real>& strip, int thread, const Skips& skips, StoredState<Real>* states)
      : strip_(strip),
        skips_(skips),
        side_(thread / kThreads),
        thread_(thread % kThreads),
        pairs_(strip.length + 1),
        way_{side_ == 0, strip.frames, strip.length},
        states_(states) {
    for (int64_t j = thread_; j < pairs_; j += kThreads)
      put(steps_done_, j, Pair<Real>::before_first_frame(j));
    __syncthreads();
  }

  // As of RegisterSide.
  __device__ bool is_alpha() const { return side_ == 0; }

  // As of RegisterSide.
  template <Task kTask>
  __device__ void walk(int64_t begin, int64_t steps, int64_t most_steps, const Total<Real>& total) {
    for (int64_t done = 0; done < most_steps; ++done) {
      if (done < steps) {
        for (int64_t j = thread_; j < pairs_; j += kThreads) advance<kTask>(begin + done, j, total);
        ++steps_done_;
      }
      __syncthreads();
    }
  }

  // As of RegisterSide.
  __device__ Extended<double> meet() const {
    Extended<double> sum = Extended<double>::zero();
    if (side_ != 0) return sum;
    const int64_t beta_steps = strip_.frames - steps_done_;
    for (int64_t j = thread_; j < pairs_; j += kThreads) {
      const Pair<Real> before = inflow_at(j);
      const auto beta = [&](int64_t of_pair) { return get(1, beta_steps, of_pair); };
      if (j < strip_.length)
        sum = normalised(sum + wide_product(before.label, beta(strip_.length - 1 - j).label));
      sum = normalised(sum + wide_product(before.blank, beta(strip_.length - j).blank));
    }
    return sum;
  }

 private:
  __device__ StoredState<Real>* blanks(int side, int64_t steps) const {
    return states_ + (side * 2 + steps % 2) * 2 * pairs_;
  }
  __device__ Pair<Real> get(int side, int64_t steps, int64_t j) const {
    const StoredState<Real>* at = blanks(side, steps) + j;
    return {at[0].state, at[pairs_].state};
  }
  __device__ void put(int64_t steps, int64_t j, const Pair<Real>& pair) const {
    StoredState<Real>* at = blanks(side_, steps) + j;
    at[0].state = pair.blank;
    at[pairs_].state = pair.label;
  }

  // Into this side's pair j at its next frame.
  __device__ Pair<Real> inflow_at(int64_t j) const {
    const bool has_label_below = 0 < j;
    const Extended<Real> below =
        has_label_below ? get(side_, steps_done_, j - 1).label : Extended<Real>::zero();
    const bool may_skip = has_label_below && j < strip_.length && skips_(way_.label(j - 1), way_.label(j));
    return inflow(get(side_, steps_done_, j), below, may_skip);
  }

  template <Task kTask>
  __device__ void advance(int64_t step, int64_t j, const Total<Real>& total) const {
    const int64_t t = way_.frame(step), label = way_.label(j);
    const int64_t row = t * (strip_.length + 1), at = t * strip_.length + label;
    const bool has_label = j < strip_.length;
    const Extended<Real> emission = has_label ? strip_.emissions[row + label].state : Extended<Real>::zero();
    const Pair<Real> before = inflow_at(j);
    const Pair<Real> after = emitted(before, strip_.emissions[row + strip_.length].state, emission);
    put(steps_done_ + 1, j, {normalised(after.blank), normalised(after.label)});
    if (kTask == Task::kNothing || !has_label) return;
    const Extended<Real> share = way_.forward ? after.label : before.label;
    const Extended<Real> met = kTask == Task::kMeet ? strip_.stored[at].state : Extended<Real>::zero();
    strip_.template put<kTask>(at, share, met, total);
  }

  const Strip<Real>& strip_;
  const Skips& skips_;
  int side_, thread_;
  int64_t pairs_;
  Way way_;
  StoredState<Real>* states_;
  int64_t steps_done_ = 0;
};

}  // namespace crnn::ctc_loss
