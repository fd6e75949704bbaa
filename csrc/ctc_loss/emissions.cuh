// From the rows of logits to the emissions that the recursion needs, in one read.
#pragma once

#include "common/emission.h"
#include "common/row_group.h"
#include "common/softmax_sum.h"
#include "ctc_loss/strip.h"
#include "targets/device_batch.h"

namespace crnn::ctc_loss {

// The emissions of sample n: (T_n, S_n + 1), normalised, those of its labels and then blank's. In an array of
// T * (labels + N) the samples lie one behind the other.
template <class Emission>
CRNN_INLINE Emission* emissions_of(Emission* emissions, const BatchShape& shape, int64_t n,
                                   const DeviceText& sample) {
  return emissions + shape.frames * (sample.first_label + n);
}

// The statistics of all rows (0 behind the last live frame) and the emissions of the live ones.
//
// Also fills the posterior behind a sample's live frames, so that equal inputs give equal tensors, bit for
// bit; not where a wrong length leaves nobody to tell whose it is, nor without a gradient (posterior null).
//
// logits: (T, N, C); peak, inverse_sum: (N, T)
template <int kRowThreads, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlock)
    emissions_kernel(Rows<const Storage> logits, DeviceBatch batch, bool normalize, Real* __restrict__ peaks,
                     Real* __restrict__ inverse_sums, StoredState<Real>* __restrict__ emissions,
                     Real* __restrict__ posterior) {
  const BatchShape& shape = batch.shape;
  const RowGroup<kRowThreads> group(shape.frames, shape.samples);
  const DeviceText sample = batch.text(group.n, group.n);
  const bool live = group.has_row && sample.valid && group.t < sample.frames;
  const Storage* row = logits.row(group.t, group.n);

  Real peak = 0, inverse_sum = live;
  if (normalize) {
    SoftmaxSum<Real> total = SoftmaxSum<Real>::empty();
    read_row<kRowThreads>(row, logits.stride_c, live ? int(shape.classes) : 0, group.thread,
                          [&](const auto& values, int) { total.add(values); });
    total =
        gpu::folded_over_group<kRowThreads>(total, [](const auto& a, const auto& b) { return joined(a, b); });
    if (total.sum != 0) {
      peak = total.peak == kMinusInfinity<Real> ? Real(0) : total.peak;
      inverse_sum = 1 / total.sum;
    }
  }

  int in_bounds = true;
  if (live) {
    const Real bound =
        normalize ? std::numeric_limits<Real>::infinity() : Real(largest_log_prob(sample.frames));
    StoredState<Real>* to = emissions_of(emissions, shape, group.n, sample) + group.t * (sample.length + 1);
    for (int64_t i = group.thread; i <= sample.length; i += kRowThreads) {
      const int64_t c = i < sample.length ? batch.label(group.n, sample, i) : batch.blank;
      // What is no label makes the loss NaN later.
      const bool is_class = c >= 0 && c < shape.classes;
      const Real x = is_class ? gpu::to_compute(row[c * logits.stride_c]) : kMinusInfinity<Real>;
      in_bounds &= x < bound;
      to[i].state = normalised(emission(x, peak, inverse_sum));
    }
  }
  if (!normalize) {
    in_bounds = gpu::folded_over_group<kRowThreads>(in_bounds, [](int a, int b) { return a & b; });
    if (!in_bounds) inverse_sum = std::numeric_limits<Real>::quiet_NaN();
  }
  if (group.has_row && posterior != nullptr && (sample.valid || shape.padded)) {
    const int64_t first = shape.padded ? group.n * shape.max_length : sample.first_label;
    // What concatenated targets hold behind the last sample belongs to it, as padding does.
    const bool last = group.n + 1 == shape.samples;
    const int64_t labels = shape.padded ? shape.max_length : last ? shape.labels - first : sample.length;
    const int64_t written = sample.frames * sample.length;  // by the recursion
    for (int64_t i = written + group.t * kRowThreads + group.thread; i < shape.frames * labels;
         i += shape.frames * kRowThreads)
      posterior[shape.frames * first + i] = 0;
  }
  if (group.has_row && group.thread == 0) {
    const int64_t at = group.n * shape.frames + group.t;
    peaks[at] = peak;
    inverse_sums[at] = inverse_sum;
  }
}

}  // namespace crnn::ctc_loss
