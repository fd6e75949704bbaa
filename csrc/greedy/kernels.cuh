// Greedy decoding on a GPU, in two kernels: the best class of every frame, then the collapse of each sample.
#pragma once

#include "common/exp2.h"
#include "common/gpu.h"
#include "common/row_reader.h"
#include "common/views.h"
#include "greedy/collapse.h"

namespace crnn::greedy {

constexpr int kBlock = 256;

template <class Real>
constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();

// A row, or the part of it that some threads have read.
template <class Real>
struct RowPeak {
  Real value;    // the largest number; NaN is passed over; -inf if there is none
  int32_t best;  // the lowest class that holds it; 0 if value is -inf
  Real sum;      // of 2^((x - value) * log2(e)); NaN if NaN or +inf were read

  static __device__ RowPeak empty() { return {kMinusInfinity<Real>, 0, 0}; }
};

// softmax's term of x. Next to a peak of -inf, x is -inf or NaN: any finite peak makes that 0 or NaN.
template <class Real>
__device__ inline Real term(Real x, Real peak) {
  return gpu::exp2((x - (peak == kMinusInfinity<Real> ? Real(0) : peak)) * Real(kLog2E));
}

template <class Real>
__device__ inline RowPeak<Real> joined(const RowPeak<Real>& a, const RowPeak<Real>& b) {
  const bool second = b.value > a.value || (b.value == a.value && b.best < a.best);
  const Real value = second ? b.value : a.value;
  return {value, second ? b.best : a.best, a.sum * term(a.value, value) + b.sum * term(b.value, value)};
}

// values: (kCount) classes from first_class on, all above those that `peak` knows.
template <class Real, int kCount>
__device__ inline void extend(RowPeak<Real>& peak, const Real (&values)[kCount], int32_t first_class,
                              bool with_sum) {
  const Real before = peak.value;
  for (int j = 0; j < kCount; ++j) {
    if (values[j] > peak.value) {
      peak.value = values[j];
      peak.best = first_class + j;
    }
  }
  if (!with_sum) return;
  peak.sum *= term(before, peak.value);
  for (int j = 0; j < kCount; ++j) peak.sum += term(values[j], peak.value);
}

template <class Real>
__device__ inline RowPeak<Real> from_lane_xor(const RowPeak<Real>& peak, int distance) {
  return {__shfl_xor_sync(gpu::kAllLanes, peak.value, distance),
          __shfl_xor_sync(gpu::kAllLanes, peak.best, distance),
          __shfl_xor_sync(gpu::kAllLanes, peak.sum, distance)};
}

// The peaks of kLanes neighbouring lanes joined, in each of them; kLanes a power of two.
template <int kLanes, class Real>
__device__ inline RowPeak<Real> joined_over_lanes(RowPeak<Real> peak) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    peak = joined(peak, from_lane_xor(peak, distance));
  return peak;
}

// The best class of each live frame and its log-probability, in one read of the logits.
//
// kRowThreads threads share a row of C classes: a part of a warp (several rows a warp) when C is small, a
// warp, or the whole block when C is large. Each keeps the peak of what it has read, with the sum of softmax
// terms relative to it; these are joined over the lanes by shuffles and, for a whole block, over the warps
// through shared memory (one RowPeak a warp).
//
// logits: (T, N, C); length_of: (N,); best_class, best_logp: (N, T), written at live frames only
template <int kRowThreads, class Storage, class Real>
__global__ void __launch_bounds__(kBlock)
    best_class_kernel(Rows<const Storage> logits, IndexView length_of, int64_t frames, int64_t samples,
                      int classes, bool normalize, int32_t* __restrict__ best_class,
                      Real* __restrict__ best_logp) {
  constexpr int kRows = kBlock / kRowThreads;
  constexpr int kLanes = kRowThreads < gpu::kWarp ? kRowThreads : gpu::kWarp;
  constexpr int kWarps = kBlock / gpu::kWarp;
  const int thread = threadIdx.x % kRowThreads;
  const int64_t row_number = int64_t(blockIdx.x) * kRows + threadIdx.x / kRowThreads;
  const bool exists = row_number < frames * samples;
  const int64_t n = exists ? row_number % samples : 0;
  const int64_t t = exists ? row_number / samples : 0;
  const bool live = exists && t < live_frames(length_of(n), frames);
  const Storage* row = logits.row(t, n);

  RowPeak<Real> peak = RowPeak<Real>::empty();
  read_row_as_group(
      row, logits.stride_c, live ? classes : 0, thread, kRowThreads,
      [&](const auto& values, int first_class) { extend(peak, values, first_class, normalize); });
  peak = joined_over_lanes<kLanes>(peak);
  if constexpr (kRowThreads > gpu::kWarp) {
    GPU_SHARED(of_warp, RowPeak<Real>[kWarps]);
    if (thread % gpu::kWarp == 0) of_warp[thread / gpu::kWarp] = peak;
    __syncthreads();
    peak = joined_over_lanes<kWarps>(of_warp[thread % kWarps]);
  }
  if (live && thread == 0) {
    const Real logp = peak.sum == 0 ? peak.value : -gpu::log(peak.sum);
    best_class[n * frames + t] = peak.best;
    best_logp[n * frames + t] = normalize ? logp : gpu::to_compute(row[peak.best * logits.stride_c]);
  }
}

__device__ inline Stretch from_lane(const Stretch& stretch, int lane) {
  return {__shfl_sync(gpu::kAllLanes, stretch.tokens, lane), __shfl_sync(gpu::kAllLanes, stretch.start, lane),
          __shfl_sync(gpu::kAllLanes, stretch.token_logp, lane),
          __shfl_sync(gpu::kAllLanes, stretch.path_logp, lane)};
}

// Each lane's stretch joined to those of all lanes below it.
__device__ inline Stretch scanned_over_lanes(Stretch stretch) {
  const int lane = threadIdx.x % gpu::kWarp;
  for (int distance = 1; distance < gpu::kWarp; distance *= 2) {
    const Stretch below = from_lane(stretch, lane >= distance ? lane - distance : lane);
    if (lane >= distance) stretch = joined(below, stretch);
  }
  return stretch;
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
    const Stretch before_warp = from_lane(up_to_warp, warp == 0 ? 0 : warp - 1);
    if (warp > 0) stretch = joined(before_warp, stretch);

    // 3. Its token, if it ends here.
    if (at_edge_of_token(current, next, blank)) decoded.put_token(n, current, joined(read, stretch), t + 1);
    read = joined(read, from_lane(up_to_warp, gpu::kWarp - 1));
  }
  for (int64_t i = read.tokens + threadIdx.x; i < decoded.frames; i += kBlock) decoded.put_padding(n, i);
  if (threadIdx.x == 0) decoded.put_sample(n, read, length);
}

// logits: (T, N, C); input_lengths: (N,); best_class, best_logp: (N, T), scratch
template <class Storage, class Real>
void launch_greedy_decode(const Rows<const Storage>& logits, const IndexView& input_lengths, int64_t frames,
                          int64_t samples, int classes, int32_t blank, bool normalize, int32_t* best_class,
                          Real* best_logp, const Decoded<Real>& decoded, gpu::Stream stream) {
  const auto launch_best_class = [&](auto kernel, int row_threads) {
    const int64_t rows_per_block = kBlock / row_threads;
    gpu::launch(kernel, (frames * samples + rows_per_block - 1) / rows_per_block, kBlock, 0, stream, logits,
                input_lengths, frames, samples, classes, normalize, best_class, best_logp);
  };
  // As few threads a row as keep it at a few 16-byte loads each: the shuffles that join them cost, too.
  if (classes <= 64) {
    launch_best_class(best_class_kernel<8, Storage, Real>, 8);
  } else if (classes <= 1024) {
    launch_best_class(best_class_kernel<32, Storage, Real>, 32);
  } else {
    launch_best_class(best_class_kernel<kBlock, Storage, Real>, kBlock);
  }
  gpu::launch(collapse_kernel<Real>, samples, kBlock, 0, stream, best_class, best_logp, input_lengths, blank,
              decoded);
}

}  // namespace crnn::greedy
