// The recursion of a text with its sums in the registers of one warp or of several.
#pragma once

#include "align/strip.h"
#include "common/warp.h"

namespace crnn::align {

// Lane l of the warps holds pairs [l * kPairs, (l + 1) * kPairs). What a pair needs of the one before it
// comes by a shuffle, and across warps through shared memory: then each frame has a barrier. Logits are read
// kAhead frames before they are used, so that their latency stays out of the chain of dependent steps.
template <class Real, int kPairs, int kWarps>
class RegisterLattice {
 public:
  // skips(a, b): may a path go straight from label a of the text to label b? Warps behind the first kWarps
  // hold no pair.
  template <class Skips>
  __device__ RegisterLattice(const Strip<Real>& strip, const Skips& skips)
      : strip_(strip), warp_(threadIdx.x / gpu::kWarp), lane_(threadIdx.x % gpu::kWarp) {
    for (int k = 0; k < kPairs; ++k) {
      const int64_t i = first_pair() + k;
      pairs_[k] = Pair<double>::before_first_frame(i);
      may_skip_[k] = 0 < i && i < strip.length && skips(i - 1, i);
    }
  }

  // Through all frames. The block's threads call it together.
  __device__ void walk() {
    if (kWarps == 1 && warp_ > 0) return;  // without barriers, nothing waits for this warp
    next_ = strip_.logits;
    Ahead ahead[kAhead] = {};
    for (int u = 0; u < kAhead; ++u) {
      if (u < strip_.frames) read(ahead[u]);
    }
    int64_t t = 0;
    for (; t + kFrames + kAhead <= strip_.frames; t += kFrames) walk_word<true>(t, ahead);
    for (; t < strip_.frames; t += kFrames) walk_word<false>(t, ahead);
  }

  // The sums of the last blank and of the label before it, where this thread has them.
  __device__ void put_last(double* blank, double* label) const {
    for (int k = 0; k < kPairs; ++k) {
      if (first_pair() + k == strip_.length) *blank = pairs_[k].blank;
      if (first_pair() + k + 1 == strip_.length) *label = pairs_[k].label;
    }
  }

 private:
  static constexpr int kFrames = kFramesPerWord<Word>;
  static constexpr int kAhead = kPairs == 1 ? kFrames : kFrames / 2;

  // What a frame needs besides the sums.
  struct Ahead {
    Real blank;
    Real label[kPairs];
  };

  __device__ int first_pair() const { return int(threadIdx.x) * kPairs; }
  __device__ bool has_label(int k) const { return first_pair() + k < strip_.length; }

  // The next frame, ahead of the one that is next in the recursion.
  __device__ void read(Ahead& ahead) {
    ahead.blank = next_[strip_.length];
    for (int k = 0; k < kPairs; ++k)
      ahead.label[k] = has_label(k) ? next_[first_pair() + k] : Real(kImpossible);
    next_ += strip_.pairs();
  }

  // The frames of the word that begins at frame t. kWhole: none of them, nor of those that are read ahead, is
  // behind the last one.
  template <bool kWhole>
  __device__ void walk_word(int64_t t, Ahead (&ahead)[kAhead]) {
    Word words[kPairs] = {};
#pragma unroll
    for (int u = 0; u < kFrames; ++u) {
      if (!kWhole && t + u >= strip_.frames) break;
      double below = label_below();
      const Ahead now = ahead[u % kAhead];
      if (kWhole || t + u + kAhead < strip_.frames) read(ahead[u % kAhead]);
      for (int k = 0; k < kPairs; ++k) {
        const double label = pairs_[k].label;
        const Word moves =
            advance<Word>(pairs_[k], below, may_skip_[k], double(now.blank), double(now.label[k]));
        words[k] |= moves << (u * kBitsPerFrame);
        below = label;
      }
    }
    for (int k = 0; k < kPairs; ++k) {
      if (warp_ < kWarps && first_pair() + k <= strip_.length) strip_.word(t, first_pair() + k) = words[k];
    }
  }

  // The label of the pair before this lane's first one.
  __device__ double label_below() {
    const double top = pairs_[kPairs - 1].label;
    double below = gpu::from_lane_below(top);
    if constexpr (kWarps > 1) {
      // Twice, so that one barrier a frame is enough: who writes here again has met the barrier between, and
      // with it all who read.
      GPU_SHARED(top_of_warp, double[2][kWarps]);
      if (lane_ == gpu::kWarp - 1 && warp_ < kWarps) top_of_warp[buffer_][warp_] = top;
      __syncthreads();
      if (lane_ == 0 && 0 < warp_ && warp_ < kWarps) below = top_of_warp[buffer_][warp_ - 1];
      buffer_ ^= 1;
    }
    return first_pair() == 0 ? kImpossible : below;
  }

  const Strip<Real>& strip_;
  int warp_, lane_;
  Pair<double> pairs_[kPairs];
  bool may_skip_[kPairs];
  const Real* next_;
  int buffer_ = 0;
};

}  // namespace crnn::align
