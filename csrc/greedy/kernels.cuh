// Greedy decoding on a GPU in two kernels: the argmax of each frame, then the collapse of each sample.
#pragma once

#include "common/row_statistics.cuh"
#include "common/row_tile.cuh"
#include "greedy/collapse.h"

namespace crnn::greedy {

// The maximum of the part of a row that some threads have read, and the lowest class with that value; class 0
// if the value is -inf.
template <class Real>
struct BestClass {
  Real value;
  int32_t index;

  static __device__ BestClass none() { return {kMinusInfinity<Real>, 0}; }

  // values: consecutive classes from first_class on, all higher than the classes read so far
  template <int kCount>
  __device__ void add(const Real (&values)[kCount], int32_t first_class) {
    for (int j = 0; j < kCount; ++j) {
      if (values[j] > value) {
        value = values[j];
        index = first_class + j;
      }
    }
  }
};

template <class Real>
__device__ inline BestClass<Real> merge(const BestClass<Real>& a, const BestClass<Real>& b) {
  const bool second_wins = b.value > a.value || (b.value == a.value && b.index < a.index);
  return second_wins ? b : a;
}

// The best class of each frame and its log-probability, in one read of the logits.
//
// logits: (T, N, C); length_of: (N,); best_class, best_logp: (N, T), written only for frames within
// input_lengths
template <int kThreadsPerRow, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlockSize)
    argmax_kernel(TncView<const Storage> logits, IndexView length_of, int64_t frames, int64_t samples,
                  int classes, bool normalize, int32_t* __restrict__ best_class,
                  Real* __restrict__ best_logp) {
  const RowTile<kThreadsPerRow> tile(frames, samples);
  const bool has_input = tile.has_row && tile.t < length_or_zero(length_of(tile.n), frames);
  const Storage* row = logits.row(tile.t, tile.n);

  BestClass<Real> best = BestClass<Real>::none();
  PartialSoftmax<Real> softmax = PartialSoftmax<Real>::empty();
  read_row<kThreadsPerRow>(row, logits.stride_c, has_input ? classes : 0, tile.thread,
                           [&](const auto& values, int first_class) {
                             best.add(values, first_class);
                             if (normalize) softmax.add(values);
                           });
  best = gpu::tile_reduce<kThreadsPerRow>(best, [](const auto& a, const auto& b) { return merge(a, b); });
  const Real sum = normalize ? merge_partial_sums<kThreadsPerRow>(softmax, best.value) : Real(0);
  if (has_input && tile.thread == 0) {
    const int64_t at = tile.n * frames + tile.t;
    const Real logp = sum == 0 ? best.value : -gpu::log(sum);
    best_class[at] = best.index;
    best_logp[at] = normalize ? logp : gpu::to_compute(row[best.index * logits.stride_c]);
  }
}

constexpr int kCollapseBlockSize = 256;

__device__ inline Segment warp_inclusive_scan(const Segment& segment) {
  return gpu::warp_inclusive_scan(segment, [](const Segment& a, const Segment& b) { return merge(a, b); });
}

// Merges repeats and drops blanks.
//
// A block handles one sample and walks its frames in tiles of one frame per thread. It scans the segments of
// the frames within each warp first, then across warps. The segments of the warps are double-buffered in
// shared memory, so one barrier per tile suffices; each warp scans all of them, which is faster than waiting
// for one that does. At the last frame of a token, the result of the scan gives the token's index, start and
// score. The order of additions depends on the shape alone.
//
// best_class, best_logp: (N, T); length_of: (N,)
template <class Real>
__global__ void __launch_bounds__(kCollapseBlockSize)
    collapse_kernel(const int32_t* __restrict__ best_class, const Real* __restrict__ best_logp,
                    IndexView length_of, int32_t blank, DecodedView<Real> decoded) {
  constexpr int kWarps = kCollapseBlockSize / gpu::kWarpSize;
  GPU_SHARED(warp_segments, Segment[2][kWarps]);
  const int lane = threadIdx.x % gpu::kWarpSize, warp = threadIdx.x / gpu::kWarpSize;
  const int64_t n = blockIdx.x;
  const int64_t length = length_of(n), input_frames = length_or_zero(length, decoded.frames);
  const int32_t* best = best_class + n * decoded.frames;
  const Real* logp = best_logp + n * decoded.frames;

  Segment prefix = Segment::empty();  // all previous tiles
  int buffer = 0;
  for (int64_t first = 0; first < input_frames; first += kCollapseBlockSize, buffer ^= 1) {
    // 1. The thread's frame. Frames after the end of the sample are empty segments.
    const int64_t t = first + threadIdx.x;
    const int32_t current = t < input_frames ? best[t] : blank;
    const int32_t previous = 0 < t && t < input_frames ? best[t - 1] : blank;
    const int32_t next = t + 1 < input_frames ? best[t + 1] : blank;
    Segment segment = Segment::empty();
    if (t < input_frames)
      segment = Segment::of_frame(t, is_token_boundary(current, previous, blank), logp[t]);

    // 2. All frames of the tile up to this one: within the warp, then with the previous warps.
    segment = warp_inclusive_scan(segment);
    if (lane == gpu::kWarpSize - 1) warp_segments[buffer][warp] = segment;
    __syncthreads();
    const Segment up_to_warp =
        warp_inclusive_scan(lane < kWarps ? warp_segments[buffer][lane] : Segment::empty());
    const Segment before_warp = gpu::shuffle(up_to_warp, warp == 0 ? 0 : warp - 1);
    if (warp > 0) segment = merge(before_warp, segment);

    // 3. Write the token that ends at this frame, if any.
    if (is_token_boundary(current, next, blank))
      decoded.write_token(n, current, merge(prefix, segment), t + 1);
    prefix = merge(prefix, gpu::shuffle(up_to_warp, gpu::kWarpSize - 1));
  }
  for (int64_t i = prefix.tokens + threadIdx.x; i < decoded.frames; i += kCollapseBlockSize)
    decoded.write_padding(n, i);
  if (threadIdx.x == 0) decoded.write_sample(n, prefix, length);
}

// logits: (T, N, C); input_lengths: (N,); best_class, best_logp: (N, T), scratch
template <class Storage, class Real>
void launch_greedy_decode(const TncView<const Storage>& logits, const IndexView& input_lengths,
                          int64_t frames, int64_t samples, int classes, int32_t blank, bool normalize,
                          int32_t* best_class, Real* best_logp, const DecodedView<Real>& decoded,
                          gpu::Stream stream) {
  dispatch_row_tile(frames * samples, classes, [&](auto threads_per_row, int64_t blocks) {
    gpu::launch(argmax_kernel<threads_per_row(), Storage, Real>, blocks, kRowBlockSize, 0, stream, logits,
                input_lengths, frames, samples, classes, normalize, best_class, best_logp);
  });
  gpu::launch(collapse_kernel<Real>, samples, kCollapseBlockSize, 0, stream, best_class, best_logp,
              input_lengths, blank, decoded);
}

}  // namespace crnn::greedy
