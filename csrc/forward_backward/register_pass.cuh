// One pass of the recursion with its states in the registers of one or several warps.
#pragma once

#include "common/warp.cuh"
#include "forward_backward/lattice_step.h"

namespace crnn::forward_backward {

// Lane l of the pass's warps holds pairs [l * kPairs, (l + 1) * kPairs). A pair needs the label of the
// previous pair: it arrives by a shuffle within a warp, and through shared memory across warps. With several
// warps, each frame has one barrier, in which both passes take part.
//
// States are normalized only every kGroup frames. Until then mantissas stay below 2 * 6^kGroup and exponents
// above (kGroup + 1) * kZeroExponent. Emissions and the stored rows of the other pass are prefetched
// kPrefetchFrames frames ahead, which keeps their latency out of the chain of dependent steps.
template <class Real, int kPairs, int kWarps>
class RegisterPass {
 public:
  static constexpr int kMaxPairs = kPairs * kWarps * gpu::kWarpSize;

  // thread: index in the block. The first kWarps warps compute alpha, the next kWarps warps beta; other warps
  // hold no pairs. skips(a, b): whether a path may go directly from label a of the target to label b.
  template <class Skips>
  __device__ RegisterPass(const SampleView<Real>& sample, int thread, const Skips& skips)
      : sample_(sample),
        pass_(thread / gpu::kWarpSize / kWarps),
        warp_(thread / gpu::kWarpSize % kWarps),
        lane_(thread % gpu::kWarpSize),
        first_pair_((warp_ * gpu::kWarpSize + lane_) * kPairs),
        traversal_{pass_ == 0, sample.frames, sample.length} {
    for (int k = 0; k < kPairs; ++k) {
      const int j = first_pair_ + k;
      pairs_[k] = StatePair<Real>::before_first_frame(j);
      may_skip_[k] = 0 < j && has_label(k) && skips(traversal_.label(j - 1), traversal_.label(j));
    }
  }

  __device__ bool is_alpha() const { return pass_ == 0; }

  // Runs `steps` steps starting at step `begin`. max_steps: the larger step count of the two passes.
  template <PassMode kMode>
  __device__ void run(int64_t begin, int64_t steps, int64_t max_steps, const Normalizer<Real>& total) {
    if (kWarps == 1 && (pass_ > 1 || steps == 0)) return;  // without barriers, no thread waits for this warp
    seek(begin);
    Prefetch prefetched[kPrefetchFrames] = {};
    for (int u = 0; u < kPrefetchFrames; ++u) {
      if (u < steps) prefetch<kMode>(prefetched[u]);
    }
    // While neither pass nears its end, including its prefetches, no bounds checks are needed. Both passes
    // agree on this bound: the pass with fewer steps has half of the frames.
    int64_t done = 0;
    for (; done + 2 * kPrefetchFrames <= sample_.frames / 2; done += kPrefetchFrames) {
#pragma unroll
      for (int u = 0; u < kPrefetchFrames; ++u) {
        advance<kMode>(label_below(), prefetched[u], total);
        prefetch<kMode>(prefetched[u]);
        if (u % kGroup == kGroup - 1) normalize();
      }
    }
    for (; done < max_steps; done += kPrefetchFrames) {
#pragma unroll
      for (int u = 0; u < kPrefetchFrames; ++u) {
        if (done + u < max_steps) {
          const Extended<Real> below = label_below();
          if (done + u < steps) advance<kMode>(below, prefetched[u], total);
          if (done + u + kPrefetchFrames < steps) prefetch<kMode>(prefetched[u]);
        }
        if (u % kGroup == kGroup - 1) normalize();
      }
    }
    normalize();  // for a last, partial group
  }

  // For alpha's threads: the sum over their pairs of the flow from the latest frame of alpha to that of beta.
  // Zero for all other threads. All threads of the block must call this.
  __device__ Extended<double> total_probability() {
    GPU_SHARED(beta, StatePair<Real>[kMaxPairs]);  // in the pair order of alpha
    if (pass_ == 1) {
      for (int k = 0; k < kPairs; ++k) {
        const int j = first_pair_ + k;
        if (has_label(k)) beta[traversal_.label(j)].label = pairs_[k].label;
        if (j <= sample_.length) beta[sample_.length - j].blank = pairs_[k].blank;
      }
    }
    const Extended<Real> alpha_below = label_below();
    __syncthreads();
    Extended<double> sum = Extended<double>::zero();
    if (pass_ != 0) return sum;
    Extended<Real> below = alpha_below;
    for (int k = 0; k < kPairs; ++k) {
      const int j = first_pair_ + k;
      const StatePair<Real> before = inflow(pairs_[k], below, may_skip_[k]);
      below = pairs_[k].label;
      if (has_label(k)) sum = normalized(sum + multiply_in_double(before.label, beta[j].label));
      if (j <= sample_.length) sum = normalized(sum + multiply_in_double(before.blank, beta[j].blank));
    }
    return sum;
  }

 private:
  static constexpr int kGroup = 4;
  static constexpr int kPrefetchFrames = kPairs == 1 ? 2 * kGroup : kGroup;

  // What a frame needs in addition to the states.
  struct Prefetch {
    Extended<Real> blank;
    Extended<Real> label[kPairs];
    Extended<Real> stored[kPairs];
  };

  __device__ bool has_label(int k) const { return first_pair_ + k < sample_.length; }

  __device__ void seek(int64_t step) {
    const int64_t t = traversal_.frame(step), row = t * (sample_.length + 1);
    const int64_t label = has_label(0) ? traversal_.label(first_pair_) : 0;
    blank_emission_ = sample_.emissions + row + sample_.length;
    label_emission_ = sample_.emissions + row + label;
    read_offset_ = write_offset_ = t * sample_.length + label;
  }

  // Loads the next frame to prefetch. All pointers advance by additions only, because the run time of a warp
  // is its number of instructions.
  template <PassMode kMode>
  __device__ void prefetch(Prefetch& prefetched) {
    prefetched.blank = blank_emission_->value;
    for (int k = 0; k < kPairs; ++k) {
      prefetched.label[k] = Extended<Real>::zero();
      if (!has_label(k)) continue;
      prefetched.label[k] = label_emission_[k * traversal_.direction()].value;
      if constexpr (kMode == PassMode::kCombine)
        prefetched.stored[k] = sample_.stored[read_offset_ + k * traversal_.direction()].value;
    }
    blank_emission_ += traversal_.direction() * (sample_.length + 1);
    label_emission_ += traversal_.direction() * (sample_.length + 1);
    read_offset_ += traversal_.direction() * sample_.length;
  }

  // The label of the pair before this lane's first pair.
  __device__ Extended<Real> label_below() {
    const Extended<Real> top = pairs_[kPairs - 1].label;
    Extended<Real> below = gpu::shuffle_up(top);
    if constexpr (kWarps > 1) {
      // Double-buffered: a slot is reused only after the next frame's barrier, so one barrier per frame
      // suffices.
      GPU_SHARED(warp_tops, Extended<Real>[2][2][kWarps]);
      if (lane_ == gpu::kWarpSize - 1) warp_tops[buffer_][pass_][warp_] = top;
      __syncthreads();
      if (lane_ == 0 && warp_ > 0) below = warp_tops[buffer_][pass_][warp_ - 1];
      buffer_ ^= 1;
    }
    return first_pair_ == 0 ? Extended<Real>::zero() : below;
  }

  template <PassMode kMode>
  __device__ void advance(Extended<Real> below, const Prefetch& prefetched, const Normalizer<Real>& total) {
    for (int k = 0; k < kPairs; ++k) {
      const StatePair<Real> before = inflow(pairs_[k], below, may_skip_[k]);
      below = pairs_[k].label;
      pairs_[k] = apply_emissions(before, prefetched.blank, prefetched.label[k]);
      if (kMode == PassMode::kDiscard || !has_label(k)) continue;
      const Extended<Real> factor = traversal_.forward ? pairs_[k].label : before.label;
      sample_.template write<kMode>(write_offset_ + k * traversal_.direction(), factor, prefetched.stored[k],
                                    total);
    }
    write_offset_ += traversal_.direction() * sample_.length;
  }

  __device__ void normalize() {
    for (StatePair<Real>& pair : pairs_) pair = {normalized(pair.blank), normalized(pair.label)};
  }

  const SampleView<Real>& sample_;
  int pass_, warp_, lane_, first_pair_;
  Traversal traversal_;
  StatePair<Real> pairs_[kPairs];
  bool may_skip_[kPairs];
  int buffer_ = 0;
  // Positions for pair first_pair_: the next emissions to prefetch, and the next stored and written elements
  // of (T, S).
  const PackedExtended<Real>* blank_emission_;
  const PackedExtended<Real>* label_emission_;
  int64_t read_offset_, write_offset_;
};

}  // namespace crnn::forward_backward
