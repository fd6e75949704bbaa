// One side of the recursion with its states in the registers of one warp or of several.
#pragma once

#include "common/warp.h"
#include "ctc_loss/strip.h"

namespace crnn::ctc_loss {

// Lane l of the side's warps holds pairs [l * kPairs, (l + 1) * kPairs). What a pair needs of the one before
// it comes by a shuffle, and across warps through shared memory: then each frame has a barrier, and both
// sides take part in it.
//
// States are normalised every kGroup frames only: until then mantissas stay below 2 * 6^kGroup and exponents
// above (kGroup + 1) * kZeroExponent. Emissions, and the rows that the other side has stored, are read
// kAhead frames before they are used, so that their latency stays out of the chain of dependent steps.
template <class Real, int kPairs, int kWarps>
class RegisterSide {
 public:
  static constexpr int kMostPairs = kPairs * kWarps * gpu::kWarp;

  // thread: its number in the block, whose first kWarps warps are alpha, the next ones beta; any others hold
  // no pair. skips(a, b): may a path go straight from label a of the target to label b?
  template <class Skips>
  __device__ RegisterSide(const Strip<Real>& strip, int thread, const Skips& skips)
      : strip_(strip),
        side_(thread / gpu::kWarp / kWarps),
        warp_(thread / gpu::kWarp % kWarps),
        lane_(thread % gpu::kWarp),
        first_pair_((warp_ * gpu::kWarp + lane_) * kPairs),
        way_{side_ == 0, strip.frames, strip.length} {
    for (int k = 0; k < kPairs; ++k) {
      const int j = first_pair_ + k;
      pairs_[k] = Pair<Real>::before_first_frame(j);
      may_skip_[k] = 0 < j && has_label(k) && skips(way_.label(j - 1), way_.label(j));
    }
  }

  __device__ bool forward() const { return way_.forward; }

  // Steps [begin, end) of this side. most_steps: the larger number of the two sides.
  template <Task kTask>
  __device__ void walk(int64_t begin, int64_t end, int64_t most_steps, const Total<Real>& total) {
    if (kWarps == 1 && (side_ > 1 || begin == end)) return;  // without barriers, nothing waits for this warp
    Ahead ahead[kAhead] = {};
    for (int u = 0; u < kAhead; ++u) {
      if (begin + u < end) read<kTask>(begin + u, ahead[u]);
    }
    for (int64_t first = begin; first < begin + most_steps; first += kAhead) {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const int64_t step = first + u;
        if (step < begin + most_steps) {
          const Extended<Real> below = label_below();
          if (step < end) {
            advance<kTask>(step, below, ahead[u], total);
            if (step + kAhead < end) read<kTask>(step + kAhead, ahead[u]);
          }
        }
        if (u % kGroup == kGroup - 1) normalise();
      }
    }
    normalise();  // for a last group that was not full
  }

  // In alpha's threads the sum over their pairs of what flows from alpha's latest frame into beta's; zero in
  // all others. The block's threads call it together.
  __device__ Extended<double> meet() {
    GPU_SHARED(beta, Pair<Real>[kMostPairs]);  // by the pairs of alpha
    if (side_ == 1) {
      for (int k = 0; k < kPairs; ++k) {
        const int j = first_pair_ + k;
        if (has_label(k)) beta[way_.label(j)].label = pairs_[k].label;
        if (j <= strip_.length) beta[strip_.length - j].blank = pairs_[k].blank;
      }
    }
    const Extended<Real> alpha_below = label_below();
    __syncthreads();
    Extended<double> sum = Extended<double>::zero();
    if (side_ != 0) return sum;
    Extended<Real> below = alpha_below;
    for (int k = 0; k < kPairs; ++k) {
      const int j = first_pair_ + k;
      const Pair<Real> before = inflow(pairs_[k], below, may_skip_[k]);
      below = pairs_[k].label;
      if (has_label(k)) sum = normalised(sum + wide_product(before.label, beta[j].label));
      if (j <= strip_.length) sum = normalised(sum + wide_product(before.blank, beta[j].blank));
    }
    return sum;
  }

 private:
  static constexpr int kGroup = 4;
  static constexpr int kAhead = kPairs == 1 ? 2 * kGroup : kGroup;

  // What a frame needs besides the states.
  struct Ahead {
    Extended<Real> blank;
    Extended<Real> label[kPairs];
    Extended<Real> stored[kPairs];
  };

  __device__ bool has_label(int k) const { return first_pair_ + k < strip_.length; }

  template <Task kTask>
  __device__ void read(int64_t step, Ahead& ahead) const {
    const int64_t t = way_.frame(step);
    ahead.blank = strip_.blank_emission(t);
    for (int k = 0; k < kPairs; ++k) {
      ahead.label[k] = Extended<Real>::zero();
      if (!has_label(k)) continue;
      const int64_t label = way_.label(first_pair_ + k);
      ahead.label[k] = strip_.label_emission(t, label);
      if constexpr (kTask == Task::kMeet) ahead.stored[k] = strip_.stored_at(t, label);
    }
  }

  // The label of the pair before this lane's first one.
  __device__ Extended<Real> label_below() {
    const Extended<Real> top = pairs_[kPairs - 1].label;
    Extended<Real> below = gpu::from_lane_below(top);
    if constexpr (kWarps > 1) {
      // Twice, so that one barrier a frame is enough: who writes here again has met the barrier between, and
      // with it all who read.
      GPU_SHARED(top_of_warp, Extended<Real>[2][2][kWarps]);
      if (lane_ == gpu::kWarp - 1) top_of_warp[buffer_][side_][warp_] = top;
      __syncthreads();
      if (lane_ == 0 && warp_ > 0) below = top_of_warp[buffer_][side_][warp_ - 1];
      buffer_ ^= 1;
    }
    return first_pair_ == 0 ? Extended<Real>::zero() : below;
  }

  template <Task kTask>
  __device__ void advance(int64_t step, Extended<Real> below, const Ahead& ahead, const Total<Real>& total) {
    const int64_t t = way_.frame(step);
    for (int k = 0; k < kPairs; ++k) {
      const Pair<Real> before = inflow(pairs_[k], below, may_skip_[k]);
      below = pairs_[k].label;
      pairs_[k] = emitted(before, ahead.blank, ahead.label[k]);
      if (kTask == Task::kNothing || !has_label(k)) continue;
      const Extended<Real> share = way_.forward ? pairs_[k].label : before.label;
      const int64_t label = way_.label(first_pair_ + k);
      strip_.template put<kTask>(t, label, share, ahead.stored[k], total);
    }
  }

  __device__ void normalise() {
    for (Pair<Real>& pair : pairs_) pair = {normalised(pair.blank), normalised(pair.label)};
  }

  const Strip<Real>& strip_;
  int side_, warp_, lane_, first_pair_;
  Way way_;
  Pair<Real> pairs_[kPairs];
  bool may_skip_[kPairs];
  int buffer_ = 0;
};

}  // namespace crnn::ctc_loss
