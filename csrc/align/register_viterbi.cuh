// The Viterbi recursion of a text with its sums in the registers of one or several warps.
#pragma once

#include "align/text_view.h"
#include "common/warp.cuh"

namespace crnn::align {

// Lane l of the warps holds pairs [l * kPairs, (l + 1) * kPairs). A pair needs the label of the previous
// pair: it arrives by a shuffle within a warp, and through shared memory across warps; then each frame has
// one barrier. Logits are prefetched kPrefetchFrames frames ahead, which keeps their latency out of the chain
// of dependent steps.
template <class Real, int kPairs, int kWarps>
class RegisterViterbi {
 public:
  // skips(a, b): whether a path may go directly from label a of the text to label b. Warps after the first
  // kWarps hold no pairs.
  template <class Skips>
  __device__ RegisterViterbi(const TextView<Real>& view, const Skips& skips)
      : view_(view), warp_(threadIdx.x / gpu::kWarpSize), lane_(threadIdx.x % gpu::kWarpSize) {
    for (int k = 0; k < kPairs; ++k) {
      const int64_t i = first_pair() + k;
      pairs_[k] = ScorePair<double>::before_first_frame(i);
      may_skip_[k] = 0 < i && i < view.length && skips(i - 1, i);
    }
  }

  // Runs through all frames. All threads of the block must call this.
  __device__ void run() {
    if (kWarps == 1 && warp_ > 0) return;  // without barriers, no thread waits for this warp
    next_ = view_.logits;
    Prefetch prefetched[kPrefetchFrames] = {};
    for (int u = 0; u < kPrefetchFrames; ++u) {
      if (u < view_.frames) prefetch(prefetched[u]);
    }
    int64_t t = 0;
    for (; t + kFrames + kPrefetchFrames <= view_.frames; t += kFrames) run_word<true>(t, prefetched);
    for (; t < view_.frames; t += kFrames) run_word<false>(t, prefetched);
  }

  // Writes the sums of the last blank and of the label before it, if this thread holds them.
  __device__ void write_last(double* blank, double* label) const {
    for (int k = 0; k < kPairs; ++k) {
      if (first_pair() + k == view_.length) *blank = pairs_[k].blank;
      if (first_pair() + k + 1 == view_.length) *label = pairs_[k].label;
    }
  }

 private:
  static constexpr int kFrames = kFramesPerWord<Word>;
  static constexpr int kPrefetchFrames = kPairs == 1 ? kFrames : kFrames / 2;

  // What a frame needs in addition to the sums.
  struct Prefetch {
    Real blank;
    Real label[kPairs];
  };

  __device__ int first_pair() const { return int(threadIdx.x) * kPairs; }
  __device__ bool has_label(int k) const { return first_pair() + k < view_.length; }

  // Loads the next frame to prefetch.
  __device__ void prefetch(Prefetch& prefetched) {
    prefetched.blank = next_[view_.length];
    for (int k = 0; k < kPairs; ++k)
      prefetched.label[k] = has_label(k) ? next_[first_pair() + k] : Real(kImpossible);
    next_ += view_.pairs();
  }

  // Processes the frames of the move word that starts at frame t. kFull: all of them and all prefetched
  // frames exist.
  template <bool kFull>
  __device__ void run_word(int64_t t, Prefetch (&prefetched)[kPrefetchFrames]) {
    Word words[kPairs] = {};
#pragma unroll
    for (int u = 0; u < kFrames; ++u) {
      if (!kFull && t + u >= view_.frames) break;
      double below = label_below();
      const Prefetch now = prefetched[u % kPrefetchFrames];
      if (kFull || t + u + kPrefetchFrames < view_.frames) prefetch(prefetched[u % kPrefetchFrames]);
      for (int k = 0; k < kPairs; ++k) {
        const double label = pairs_[k].label;
        const Word moves =
            advance<Word>(pairs_[k], below, may_skip_[k], double(now.blank), double(now.label[k]));
        words[k] |= moves << (u * kBitsPerFrame);
        below = label;
      }
    }
    for (int k = 0; k < kPairs; ++k) {
      if (warp_ < kWarps && first_pair() + k <= view_.length) view_.word(t, first_pair() + k) = words[k];
    }
  }

  // The label of the pair before this lane's first pair.
  __device__ double label_below() {
    const double top = pairs_[kPairs - 1].label;
    double below = gpu::shuffle_up(top);
    if constexpr (kWarps > 1) {
      // Double-buffered: a slot is reused only after the next frame's barrier, so one barrier per frame
      // suffices.
      GPU_SHARED(warp_tops, double[2][kWarps]);
      if (lane_ == gpu::kWarpSize - 1 && warp_ < kWarps) warp_tops[buffer_][warp_] = top;
      __syncthreads();
      if (lane_ == 0 && 0 < warp_ && warp_ < kWarps) below = warp_tops[buffer_][warp_ - 1];
      buffer_ ^= 1;
    }
    return first_pair() == 0 ? kImpossible : below;
  }

  const TextView<Real>& view_;
  int warp_, lane_;
  ScorePair<double> pairs_[kPairs];
  bool may_skip_[kPairs];
  const Real* next_;
  int buffer_ = 0;
};

}  // namespace crnn::align
