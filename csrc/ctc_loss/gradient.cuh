// The rows of the gradient on a GPU: (softmax - posterior) * incoming gradient.
#pragma once

#include "common/row_statistics.cuh"
#include "common/row_tile.cuh"
#include "forward_backward/saved.h"
#include "targets/device_batch.h"

namespace crnn::ctc_loss {

using namespace forward_backward;

// A chain of the occurrences of a class in a target. One thread sums the posteriors along the chain in a
// fixed order.
struct Occurrence {
  int32_t next;  // index of the next occurrence in the target; -1 for the last one
  bool is_first;
};

constexpr int kPrepareBlockSize = 256, kLabelsPerBlock = 64;

// Prepares what all rows of a sample share. One block handles up to kLabelsPerBlock labels of a sample; each
// of its warps takes one label at a time.
//
// grad_loss: (N), or () with stride 0; scales: (N); occurrences: in the layout of targets, per label
template <class Real>
__global__ void __launch_bounds__(kPrepareBlockSize)
    prepare_gradient_kernel(DeviceBatch batch, int64_t blocks_per_sample, Reduction reduction,
                            const Real* __restrict__ grad_loss, int64_t grad_stride,
                            Real* __restrict__ scales, Occurrence* __restrict__ occurrences) {
  constexpr int kWarps = kPrepareBlockSize / gpu::kWarpSize;
  const int lane = threadIdx.x % gpu::kWarpSize, warp = threadIdx.x / gpu::kWarpSize;
  const int64_t n = blockIdx.x / blocks_per_sample, label_block = blockIdx.x % blocks_per_sample;
  const DeviceText sample = batch.text(n);
  if (label_block == 0 && threadIdx.x == 0)
    scales[n] = Real(double(grad_loss[n * grad_stride]) *
                     reduction_weight(batch.shape.samples, sample.length, reduction));

  const int64_t end = minimum(sample.length, (label_block + 1) * kLabelsPerBlock);
  for (int64_t i = label_block * kLabelsPerBlock + warp; i < end; i += kWarps) {
    const int64_t label = batch.label(sample, i);
    // The lanes that hold the same label, among the 32 labels from `begin` on.
    const auto matches = [&](int64_t begin, int64_t end_of_range) {
      const int64_t j = begin + lane;
      return __ballot_sync(gpu::kFullMask, j < end_of_range && batch.label(sample, j) == label);
    };
    bool is_first = true;
    for (int64_t begin = 0; is_first && begin < i; begin += gpu::kWarpSize) is_first = matches(begin, i) == 0;
    int64_t next = -1;
    for (int64_t begin = i + 1; next < 0 && begin < sample.length; begin += gpu::kWarpSize) {
      const unsigned found = matches(begin, sample.length);
      if (found != 0) next = begin + __ffs(int(found)) - 1;
    }
    if (lane == 0) occurrences[sample.target_offset + i] = {int32_t(next), is_first};
  }
}

// Fills each row as if all posteriors were zero, then rewrites the classes that have a posterior.
//
// logits, gradient: (T, N, C); scales: (N); occurrences: in the layout of targets
template <int kThreadsPerRow, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlockSize)
    gradient_kernel(TncView<const Storage> logits, TncView<Storage> gradient, DeviceBatch batch,
                    bool normalize, Saved<const Real> saved, const Real* __restrict__ scales,
                    const Occurrence* __restrict__ occurrences) {
  const BatchShape& shape = batch.shape;
  const RowTile<kThreadsPerRow> tile(shape.frames, shape.samples);
  const DeviceText sample = batch.text(tile.n);
  const Storage* from = logits.row(tile.t, tile.n);
  Storage* to = gradient.row(tile.t, tile.n);
  const int64_t at = tile.n * shape.frames + tile.t;
  const bool has_input = tile.has_row && tile.t < sample.frames;
  const Real row_max = has_input
                           ? checked_row_max(saved.row_max[at], sample.valid, sample.frames, sample.length)
                           : std::numeric_limits<Real>::infinity();
  const bool has_gradient = row_max < std::numeric_limits<Real>::infinity();

  // 1. The whole row.
  const Real inverse_sum = has_gradient ? saved.inverse_sum[at] : Real(0);
  const Real scale = has_gradient ? scales[tile.n] : Real(0);
  const int classes = tile.has_row ? int(shape.classes) : 0;
  if (has_gradient && normalize) {
    const Real row_scale = inverse_sum * scale;
    transform_row<kThreadsPerRow>(from, logits.stride_c, to, gradient.stride_c, classes, tile.thread,
                                  [&](Real x) { return safe_softmax_term(x, row_max) * row_scale; });
  } else {
    const Real value = row_max != row_max ? row_max : Real(0);
    fill_row<kThreadsPerRow>(to, gradient.stride_c, classes, tile.thread, value);
  }
  gpu::sync_tile<kThreadsPerRow>();

  // 2. The classes of the labels, and blank.
  const auto write = [&](int64_t c, Real x, Real posterior) {
    const Real softmax = normalize ? safe_softmax_term(x, row_max) * inverse_sum : Real(0);
    to[c * gradient.stride_c] = gpu::from_compute<Storage>(scale * (softmax - posterior));
  };
  Real labels_posterior = 0;
  if (has_gradient) {
    const Real* posterior = saved.posterior + shape.frames * sample.target_offset + tile.t * sample.length;
    const Occurrence* of_label = occurrences + sample.target_offset;
    for (int64_t i = tile.thread; i < sample.length; i += kThreadsPerRow) {
      labels_posterior += posterior[i];
      if (!of_label[i].is_first) continue;
      Real sum = posterior[i];
      for (int32_t j = of_label[i].next; j >= 0; j = of_label[j].next) sum += posterior[j];
      const int64_t c = batch.label(sample, i);
      // Targets may have changed since the forward pass.
      if (is_valid_label(c, shape.classes, batch.blank))
        write(c, gpu::to_compute(from[c * logits.stride_c]), sum);
    }
  }
  labels_posterior = gpu::tile_reduce<kThreadsPerRow>(labels_posterior, [](Real a, Real b) { return a + b; });
  if (has_gradient && tile.thread == 0) {
    const Real x = gpu::to_compute(from[batch.blank * logits.stride_c]);
    write(batch.blank, x, blank_posterior(labels_posterior, x - row_max));
  }
}

}  // namespace crnn::ctc_loss
