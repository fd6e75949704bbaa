// One pass of the recursion with its states in memory, for targets of any length.
#pragma once

#include "common/gpu.h"
#include "forward_backward/lattice_step.h"

namespace crnn::forward_backward {

// Two passes, two buffers, and blank and label of each pair.
constexpr int64_t kStatesPerPair = 2 * 2 * 2;

// kThreads threads share the pairs of a pass and loop over them at each frame. States are double-buffered, so
// one barrier per frame suffices.
template <class Real, int kThreads, class Skips>
class MemoryPass {
 public:
  // thread: index in the block; the first kThreads threads compute alpha, the others beta. skips: see
  // RegisterPass. states: (kStatesPerPair, S + 1), scratch
  __device__ MemoryPass(const SampleView<Real>& sample, int thread, const Skips& skips,
                        PackedExtended<Real>* states)
      : sample_(sample),
        skips_(skips),
        pass_(thread / kThreads),
        thread_(thread % kThreads),
        pairs_(sample.length + 1),
        traversal_{pass_ == 0, sample.frames, sample.length},
        states_(states) {
    for (int64_t j = thread_; j < pairs_; j += kThreads)
      store(steps_done_, j, StatePair<Real>::before_first_frame(j));
    __syncthreads();
  }

  // See RegisterPass.
  __device__ bool is_alpha() const { return pass_ == 0; }

  // See RegisterPass.
  template <PassMode kMode>
  __device__ void run(int64_t begin, int64_t steps, int64_t max_steps, const Normalizer<Real>& total) {
    for (int64_t done = 0; done < max_steps; ++done) {
      if (done < steps) {
        for (int64_t j = thread_; j < pairs_; j += kThreads) advance<kMode>(begin + done, j, total);
        ++steps_done_;
      }
      __syncthreads();
    }
  }

  // See RegisterPass.
  __device__ Extended<double> total_probability() const {
    Extended<double> sum = Extended<double>::zero();
    if (pass_ != 0) return sum;
    const int64_t beta_steps = sample_.frames - steps_done_;
    for (int64_t j = thread_; j < pairs_; j += kThreads) {
      const StatePair<Real> before = inflow_at(j);
      const auto beta = [&](int64_t of_pair) { return load(1, beta_steps, of_pair); };
      if (j < sample_.length)
        sum = normalized(sum + multiply_in_double(before.label, beta(sample_.length - 1 - j).label));
      sum = normalized(sum + multiply_in_double(before.blank, beta(sample_.length - j).blank));
    }
    return sum;
  }

 private:
  __device__ PackedExtended<Real>* blanks(int pass, int64_t steps) const {
    return states_ + (pass * 2 + steps % 2) * 2 * pairs_;
  }
  __device__ StatePair<Real> load(int pass, int64_t steps, int64_t j) const {
    const PackedExtended<Real>* at = blanks(pass, steps) + j;
    return {at[0].value, at[pairs_].value};
  }
  __device__ void store(int64_t steps, int64_t j, const StatePair<Real>& pair) const {
    PackedExtended<Real>* at = blanks(pass_, steps) + j;
    at[0].value = pair.blank;
    at[pairs_].value = pair.label;
  }

  // The inflow of this pass's pair j at its next frame.
  __device__ StatePair<Real> inflow_at(int64_t j) const {
    const bool has_label_below = 0 < j;
    const Extended<Real> below =
        has_label_below ? load(pass_, steps_done_, j - 1).label : Extended<Real>::zero();
    const bool may_skip =
        has_label_below && j < sample_.length && skips_(traversal_.label(j - 1), traversal_.label(j));
    return inflow(load(pass_, steps_done_, j), below, may_skip);
  }

  template <PassMode kMode>
  __device__ void advance(int64_t step, int64_t j, const Normalizer<Real>& total) const {
    const int64_t t = traversal_.frame(step), label = traversal_.label(j);
    const int64_t row = t * (sample_.length + 1), at = t * sample_.length + label;
    const bool has_label = j < sample_.length;
    const Extended<Real> emission = has_label ? sample_.emissions[row + label].value : Extended<Real>::zero();
    const StatePair<Real> before = inflow_at(j);
    const StatePair<Real> after =
        apply_emissions(before, sample_.emissions[row + sample_.length].value, emission);
    store(steps_done_ + 1, j, {normalized(after.blank), normalized(after.label)});
    if (kMode == PassMode::kDiscard || !has_label) return;
    const Extended<Real> factor = traversal_.forward ? after.label : before.label;
    const Extended<Real> other =
        kMode == PassMode::kCombine ? sample_.stored[at].value : Extended<Real>::zero();
    sample_.template write<kMode>(at, factor, other, total);
  }

  const SampleView<Real>& sample_;
  const Skips& skips_;
  int pass_, thread_;
  int64_t pairs_;
  Traversal traversal_;
  PackedExtended<Real>* states_;
  int64_t steps_done_ = 0;
};

}  // namespace crnn::forward_backward
