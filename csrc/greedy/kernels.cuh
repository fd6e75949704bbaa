// Greedy decoding on a GPU, in two kernels: the best class of every frame, then the collapse of each sample.
#pragma once

#include "common/row_group.h"
#include "common/softmax_sum.h"
#include "greedy/collapse.h"

namespace crnn::greedy {

// The highest number of a row, or of the part of it that some threads have read, and the lowest class that
// holds it: 0 if that is -inf.
template <class Real>
struct Best {
  Real highest;
  int32_t label;

  static __device__ Best none() { return {kMinusInfinity<Real>, 0}; }

  // values: classes from first_class on, all above those that have been read
  template <int kCount>
  __device__ void add(const Real (&values)[kCount], int32_t first_class) {
    for (int j = 0; j < kCount; ++j) {
      if (values[j] > highest) {
        highest = values[j];
        label = first_class + j;
      }
    }
  }
};

template <class Real>
__device__ inline Best<Real> better(const Best<Real>& a, const Best<Real>& b) {
  const bool is_second = b.highest > a.highest || (b.highest == a.highest && b.label < a.label);
  return is_second ? b : a;
}

// The best class of each live frame and its log-probability, in one read of the logits.
//
// logits: (T, N, C); length_of: (N,); best_class, best_logp: (N, T), written at live frames only
template <int kRowThreads, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlock)
    best_class_kernel(Rows<const Storage> logits, IndexView length_of, int64_t frames, int64_t samples,
                      int classes, bool normalize, int32_t* __restrict__ best_class,
                      Real* __restrict__ best_logp) {
  const RowGroup<kRowThreads> group(frames, samples);
  const bool live = group.has_row && group.t < live_frames(length_of(group.n), frames);
  const Storage* row = logits.row(group.t, group.n);

  Best<Real> best = Best<Real>::none();
  SoftmaxSum<Real> softmax = SoftmaxSum<Real>::empty();
  read_row<kRowThreads>(row, logits.stride_c, live ? classes : 0, group.thread,
                        [&](const auto& values, int first_class) {
                          best.add(values, first_class);
                          if (normalize) softmax.add(values);
                        });
  best = gpu::folded_over_group<kRowThreads>(best, [](const auto& a, const auto& b) { return better(a, b); });
  const Real sum = normalize ? sum_of_parts<kRowThreads>(softmax, best.highest) : Real(0);
  if (live && group.thread == 0) {
    const int64_t at = group.n * frames + group.t;
    const Real logp = sum == 0 ? best.highest : -gpu::log(sum);
    best_class[at] = best.label;
    best_logp[at] = normalize ? logp : gpu::to_compute(row[best.label * logits.stride_c]);
  }
}

constexpr int kBlock = 256;

__device__ inline Stretch scanned_over_lanes(const Stretch& stretch) {
  return gpu::scanned_over_lanes(stretch, [](const Stretch& a, const Stretch& b) { return joined(a, b); });
}

// Merges repeats and leaves out blanks.
//
// A block has one sample and walks its frames in tiles, a thread a frame. The frames' stretches are scanned
// first within each warp, then over the warps: their sums lie in shared memory, twice, so that a tile needs a
// single barrier, and each warp scans all of them, which is quicker than waiting for one that does. What the
// scan gives at the last frame of a token says where the token goes, and its start and score. The order of
// additions depends on the shape alone.
//
// best_class, best_logp: (N, T); length_of: (N,)
template <class Real>
__global__ void __launch_bounds__(kBlock)
    collapse_kernel(const int32_t* __restrict__ best_class, const Real* __restrict__ best_logp,
                    IndexView length_of, int32_t blank, Decoded<Real> decoded) {
  constexpr int kWarps = kBlock / gpu::kWarp;
  GPU_SHARED(sum_of_warp, Stretch[2][kWarps]);
  const int lane = threadIdx.x % gpu::kWarp, warp = threadIdx.x / gpu::kWarp;
  const int64_t n = blockIdx.x;
  const int64_t length = length_of(n), live = live_frames(length, decoded.frames);
  const int32_t* best = best_class + n * decoded.frames;
  const Real* logp = best_logp + n * decoded.frames;

  Stretch read = Stretch::empty();  // all tiles before this one
  int buffer = 0;
  for (int64_t first = 0; first < live; first += kBlock, buffer ^= 1) {
    // 1. The thread's frame. Frames behind the last one are as nothing.
    const int64_t t = first + threadIdx.x;
    const int32_t current = t < live ? best[t] : blank;
    const int32_t previous = 0 < t && t < live ? best[t - 1] : blank;
    const int32_t next = t + 1 < live ? best[t + 1] : blank;
    Stretch stretch = Stretch::empty();
    if (t < live) stretch = Stretch::of_frame(t, at_edge_of_token(current, previous, blank), logp[t]);

    // 2. All frames of the tile up to this one: within the warp, then with the warps before it.
    stretch = scanned_over_lanes(stretch);
    if (lane == gpu::kWarp - 1) sum_of_warp[buffer][warp] = stretch;
    __syncthreads();
    const Stretch up_to_warp =
        scanned_over_lanes(lane < kWarps ? sum_of_warp[buffer][lane] : Stretch::empty());
    const Stretch before_warp = gpu::from_lane(up_to_warp, warp == 0 ? 0 : warp - 1);
    if (warp > 0) stretch = joined(before_warp, stretch);

    // 3. Its token, if it ends here.
    if (at_edge_of_token(current, next, blank)) decoded.put_token(n, current, joined(read, stretch), t + 1);
    read = joined(read, gpu::from_lane(up_to_warp, gpu::kWarp - 1));
  }
  for (int64_t i = read.tokens + threadIdx.x; i < decoded.frames; i += kBlock) decoded.put_padding(n, i);
  if (threadIdx.x == 0) decoded.put_sample(n, read, length);
}

// logits: (T, N, C); input_lengths: (N,); best_class, best_logp: (N, T), scratch
template <class Storage, class Real>
void launch_greedy_decode(const Rows<const Storage>& logits, const IndexView& input_lengths, int64_t frames,
                          int64_t samples, int classes, int32_t blank, bool normalize, int32_t* best_class,
                          Real* best_logp, const Decoded<Real>& decoded, gpu::Stream stream) {
  with_row_groups(frames * samples, classes, [&](auto row_threads, int64_t blocks) {
    gpu::launch(best_class_kernel<row_threads(), Storage, Real>, blocks, kRowBlock, 0, stream, logits,
                input_lengths, frames, samples, classes, normalize, best_class, best_logp);
  });
  gpu::launch(collapse_kernel<Real>, samples, kBlock, 0, stream, best_class, best_logp, input_lengths, blank,
              decoded);
}

}  // namespace crnn::greedy
