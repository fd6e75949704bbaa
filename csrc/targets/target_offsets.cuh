// Computes where the labels of each text begin in concatenated targets.
#pragma once

#include "common/warp.cuh"
#include "targets/device_batch.h"

namespace crnn {

constexpr int kScanBlockSize = 256;

// One block scans the texts in tiles. After an invalid length all offsets are unknown: the sums saturate at
// labels + 1.
//
// target_lengths, target_offsets: (texts)
static __global__ void __launch_bounds__(kScanBlockSize)
    target_offsets_kernel(IndexView target_lengths, int64_t texts, int64_t labels,
                          int64_t* __restrict__ target_offsets) {
  constexpr int kWarps = kScanBlockSize / gpu::kWarpSize;
  GPU_SHARED(warp_sums, int64_t[2][kWarps]);
  const int lane = threadIdx.x % gpu::kWarpSize, warp = threadIdx.x / gpu::kWarpSize;
  const int64_t unknown = labels + 1;
  const auto saturating_add = [unknown](int64_t a, int64_t b) { return minimum(a + b, unknown); };

  int64_t before_tile = 0;
  int buffer = 0;
  for (int64_t begin = 0; begin < texts; begin += kScanBlockSize, buffer ^= 1) {
    const int64_t m = begin + threadIdx.x;
    const int64_t length = m < texts ? target_lengths(m) : 0;
    const int64_t sum =
        gpu::warp_inclusive_scan(is_valid_length(length, labels) ? length : unknown, saturating_add);
    if (lane == gpu::kWarpSize - 1) warp_sums[buffer][warp] = sum;
    __syncthreads();
    int64_t before = before_tile;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before = saturating_add(before, warp_sums[buffer][w]);
      before_tile = saturating_add(before_tile, warp_sums[buffer][w]);
    }
    const int64_t below = gpu::shuffle_up(sum);
    if (m < texts) target_offsets[m] = saturating_add(before, lane == 0 ? 0 : below);
  }
}

// Fills batch.target_offsets for concatenated targets. target_offsets: (texts)
inline void launch_target_offsets(const DeviceBatch& batch, int64_t* target_offsets, gpu::Stream stream) {
  if (batch.shape.padded) return;
  gpu::launch(target_offsets_kernel, 1, kScanBlockSize, 0, stream, batch.target_lengths, batch.shape.texts(),
              batch.shape.labels, target_offsets);
}

}  // namespace crnn
