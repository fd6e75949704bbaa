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

  __device__ bool is_alpha() const { return side_ == 0; }

  // Takes `steps` steps from step `begin` on. most_steps: the larger number of the two sides.
  template <Task kTask>
  __device__ void walk(int64_t begin, int64_t steps, int64_t most_steps, const Total<Real>& total) {
    if (kWarps == 1 && (side_ > 1 || steps == 0)) return;  // without barriers, nothing waits for this warp
    go_to(begin);
    Ahead ahead[kAhead] = {};
    for (int u = 0; u < kAhead; ++u) {
      if (u < steps) read<kTask>(ahead[u]);
    }
    // As long as neither side comes to its end, not even with what it reads ahead, no frame has to be asked
    // for. Both sides agree on that: the one with fewer steps has half of the frames.
    int64_t done = 0;
    for (; done + 2 * kAhead <= strip_.frames / 2; done += kAhead) {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        advance<kTask>(label_below(), ahead[u], total);
        read<kTask>(ahead[u]);
        if (u % kGroup == kGroup - 1) normalise();
      }
    }
    for (; done < most_steps; done += kAhead) {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        if (done + u < most_steps) {
          const Extended<Real> below = label_below();
          if (done + u < steps) advance<kTask>(below, ahead[u], total);
          if (done + u + kAhead < steps) read<kTask>(ahead[u]);
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

  __device__ void go_to(int64_t step) {
    const int64_t t = way_.frame(step), row = t * (strip_.length + 1);
    const int64_t label = has_label(0) ? way_.label(first_pair_) : 0;
    blank_emission_ = strip_.emissions + row + strip_.length;
    label_emission_ = strip_.emissions + row + label;
    read_at_ = put_at_ = t * strip_.length + label;
  }

  // The next frame, ahead of the one that is put next. Both move on by additions alone: a warp's time is the
  // number of its instructions.
  template <Task kTask>
  __device__ void read(Ahead& ahead) {
    ahead.blank = blank_emission_->state;
    for (int k = 0; k < kPairs; ++k) {
      ahead.label[k] = Extended<Real>::zero();
      if (!has_label(k)) continue;
      ahead.label[k] = label_emission_[k * way_.direction()].state;
      if constexpr (kTask == Task::kMeet)
        ahead.stored[k] = strip_.stored[read_at_ + k * way_.direction()].state;
    }
    blank_emission_ += way_.direction() * (strip_.length + 1);
    label_emission_ += way_.direction() * (strip_.length + 1);
    read_at_ += way_.direction() * strip_.length;
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
  __device__ void advance(Extended<Real> below, const Ahead& ahead, const Total<Real>& total) {
    for (int k = 0; k < kPairs; ++k) {
      const Pair<Real> before = inflow(pairs_[k], below, may_skip_[k]);
      below = pairs_[k].label;
      pairs_[k] = emitted(before, ahead.blank, ahead.label[k]);
      if (kTask == Task::kNothing || !has_label(k)) continue;
      const Extended<Real> share = way_.forward ? pairs_[k].label : before.label;
      strip_.template put<kTask>(put_at_ + k * way_.direction(), share, ahead.stored[k], total);
    }
    put_at_ += way_.direction() * strip_.length;
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
  // Of pair first_pair_ and of the next frame: what is read, and where among the labels of all frames.
  const StoredState<Real>* blank_emission_;
  const StoredState<Real>* label_emission_;
  int64_t read_at_, put_at_;
};

}  // namespace crnn::ctc_loss
