// The gradient's rows on a GPU: softmax - occupancy, times the incoming gradient.
#pragma once

#include "common/row_group.h"
#include "common/softmax_sum.h"
#include "ctc_loss/occupancy.h"
#include "ctc_loss/saved.h"
#include "targets/device_batch.h"

namespace crnn::ctc_loss {

// Where a label of a target occurs again. One class's occupancies are added up along this chain, in a fixed
// order and by one thread.
struct Occurrence {
  int32_t next;  // index of its next occurrence in the target; -1 behind the last one
  bool is_first;
};

constexpr int kPrepareBlock = 256, kLabelsPerBlock = 64;

// What the rows of a sample have in common: a block for up to kLabelsPerBlock of its labels, a warp for each
// of them in turn.
//
// grad_loss: (N) or () with stride 0; scales: (N); occurrences: as targets, labels of each sample
template <class Real>
__global__ void __launch_bounds__(kPrepareBlock)
    prepare_gradient_kernel(DeviceBatch batch, int64_t blocks_per_sample, Reduction reduction,
                            const Real* __restrict__ grad_loss, int64_t grad_stride,
                            Real* __restrict__ scales, Occurrence* __restrict__ occurrences) {
  constexpr int kWarps = kPrepareBlock / gpu::kWarp;
  const int lane = threadIdx.x % gpu::kWarp, warp = threadIdx.x / gpu::kWarp;
  const int64_t n = blockIdx.x / blocks_per_sample, piece = blockIdx.x % blocks_per_sample;
  const DeviceText sample = batch.text(n);
  if (piece == 0 && threadIdx.x == 0)
    scales[n] =
        Real(double(grad_loss[n * grad_stride]) * weight(batch.shape.samples, sample.length, reduction));

  const int64_t end = smaller(sample.length, (piece + 1) * kLabelsPerBlock);
  for (int64_t i = piece * kLabelsPerBlock + warp; i < end; i += kWarps) {
    const int64_t label = batch.label(sample, i);
    // The lanes whose label, of the 32 from `begin` on, is the same one.
    const auto matches = [&](int64_t begin, int64_t behind) {
      const int64_t j = begin + lane;
      return __ballot_sync(gpu::kAllLanes, j < behind && batch.label(sample, j) == label);
    };
    bool is_first = true;
    for (int64_t begin = 0; is_first && begin < i; begin += gpu::kWarp) is_first = matches(begin, i) == 0;
    int64_t next = -1;
    for (int64_t begin = i + 1; next < 0 && begin < sample.length; begin += gpu::kWarp) {
      const unsigned found = matches(begin, sample.length);
      if (found != 0) next = begin + __ffs(int(found)) - 1;
    }
    if (lane == 0) occurrences[sample.first_label + i] = {int32_t(next), is_first};
  }
}

// Each row is filled as if no label had an occupancy; then those that have one are written again.
//
// logits, gradient: (T, N, C); scales: (N); occurrences: as targets
template <int kRowThreads, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlock)
    gradient_kernel(Rows<const Storage> logits, Rows<Storage> gradient, DeviceBatch batch, bool normalize,
                    Saved<const Real> saved, const Real* __restrict__ scales,
                    const Occurrence* __restrict__ occurrences) {
  const BatchShape& shape = batch.shape;
  const RowGroup<kRowThreads> group(shape.frames, shape.samples);
  const DeviceText sample = batch.text(group.n);
  const Storage* from = logits.row(group.t, group.n);
  Storage* to = gradient.row(group.t, group.n);
  const int64_t at = group.n * shape.frames + group.t;
  const bool live = group.has_row && group.t < sample.frames;
  const Real peak = live ? trusted_peak(saved.peak[at], sample.valid, sample.frames, sample.length)
                         : std::numeric_limits<Real>::infinity();
  const bool has_gradient = peak < std::numeric_limits<Real>::infinity();

  // 1. The whole row.
  const Real inverse_sum = has_gradient ? saved.inverse_sum[at] : Real(0);
  const Real scale = has_gradient ? scales[group.n] : Real(0);
  const int classes = group.has_row ? int(shape.classes) : 0;
  if (has_gradient && normalize) {
    const Real row_scale = inverse_sum * scale;
    transform_row<kRowThreads>(from, logits.stride_c, to, gradient.stride_c, classes, group.thread,
                               [&](Real x) { return softmax_term_of(x, peak) * row_scale; });
  } else {
    const Real value = peak != peak ? peak : Real(0);
    fill_row<kRowThreads>(to, gradient.stride_c, classes, group.thread, value);
  }
  gpu::synchronise_group<kRowThreads>();

  // 2. The classes of labels, and blank.
  const auto put = [&](int64_t c, Real x, Real occupancy) {
    const Real softmax = normalize ? softmax_term_of(x, peak) * inverse_sum : Real(0);
    to[c * gradient.stride_c] = gpu::from_compute<Storage>(scale * (softmax - occupancy));
  };
  Real occupancy_of_labels = 0;
  if (has_gradient) {
    const Real* occupancy = saved.posterior + shape.frames * sample.first_label + group.t * sample.length;
    const Occurrence* of_label = occurrences + sample.first_label;
    for (int64_t i = group.thread; i < sample.length; i += kRowThreads) {
      occupancy_of_labels += occupancy[i];
      if (!of_label[i].is_first) continue;
      Real sum = occupancy[i];
      for (int32_t j = of_label[i].next; j >= 0; j = of_label[j].next) sum += occupancy[j];
      const int64_t c = batch.label(sample, i);
      // Targets may have changed since the forward pass.
      if (is_label(c, shape.classes, batch.blank)) put(c, gpu::to_compute(from[c * logits.stride_c]), sum);
    }
  }
  occupancy_of_labels =
      gpu::folded_over_group<kRowThreads>(occupancy_of_labels, [](Real a, Real b) { return a + b; });
  if (has_gradient && group.thread == 0) {
    const Real x = gpu::to_compute(from[batch.blank * logits.stride_c]);
    put(batch.blank, x, blank_occupancy(occupancy_of_labels, x - peak));
  }
}

}  // namespace crnn::ctc_loss
