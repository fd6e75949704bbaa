// Where each text's labels begin in concatenated targets.
#pragma once

#include "common/warp.h"
#include "targets/device_batch.h"

namespace crnn {

constexpr int kScanBlock = 256;

// One block walks the texts in tiles. Behind a length that breaks the rules nothing can be told: the sums
// stick at one above the number of labels.
//
// target_lengths, first_label: (texts)
static __global__ void __launch_bounds__(kScanBlock)
    first_label_kernel(IndexView target_lengths, int64_t texts, int64_t labels,
                       int64_t* __restrict__ first_label) {
  constexpr int kWarps = kScanBlock / gpu::kWarp;
  GPU_SHARED(sum_of_warp, int64_t[2][kWarps]);
  const int lane = threadIdx.x % gpu::kWarp, warp = threadIdx.x / gpu::kWarp;
  const int64_t lost = labels + 1;
  const auto added = [lost](int64_t a, int64_t b) { return smaller(a + b, lost); };

  int64_t before_tile = 0;
  int buffer = 0;
  for (int64_t begin = 0; begin < texts; begin += kScanBlock, buffer ^= 1) {
    const int64_t m = begin + threadIdx.x;
    const int64_t length = m < texts ? target_lengths(m) : 0;
    const int64_t sum = gpu::scanned_over_lanes(is_possible_length(length, labels) ? length : lost, added);
    if (lane == gpu::kWarp - 1) sum_of_warp[buffer][warp] = sum;
    __syncthreads();
    int64_t before = before_tile;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before = added(before, sum_of_warp[buffer][w]);
      before_tile = added(before_tile, sum_of_warp[buffer][w]);
    }
    const int64_t below = gpu::from_lane_below(sum);
    if (m < texts) first_label[m] = added(before, lane == 0 ? 0 : below);
  }
}

// Fills batch.first_label, if targets are concatenated. first_label: (texts)
inline void launch_first_label(const DeviceBatch& batch, int64_t* first_label, gpu::Stream stream) {
  if (batch.shape.padded) return;
  gpu::launch(first_label_kernel, 1, kScanBlock, 0, stream, batch.target_lengths, batch.shape.texts(),
              batch.shape.labels, first_label);
}

}  // namespace crnn
