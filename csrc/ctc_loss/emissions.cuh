// From the rows of logits to the emissions that the recursion needs, in one read.
#pragma once

#include "common/emission.h"
#include "common/row_group.h"
#include "common/softmax_sum.h"
#include "ctc_loss/strip.h"
#include "targets/device_batch.h"
#include "targets/statistics.h"

namespace crnn::ctc_loss {

// The emissions of a text: (T_n, S_m + 1), normalised, those of its labels and then blank's. In an array of
// T * (labels + texts) the texts lie one behind the other.
template <class Emission>
CRNN_INLINE Emission* emissions_of(Emission* emissions, const BatchShape& shape, const DeviceText& text) {
  return emissions + shape.frames * (text.first_label + text.slot);
}

// The statistics of all rows (0 behind the last live frame), for each text unless they are there, and the
// emissions of the live ones.
//
// Also fills the posterior behind a sample's live frames, so that equal inputs give equal tensors, bit for
// bit; not where a wrong length leaves nobody to tell whose it is, nor without a gradient (posterior null).
//
// logits: (T, N, C); peak, inverse_sum: (texts, T)
template <int kRowThreads, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlock)
    emissions_kernel(Rows<const Storage> logits, DeviceBatch batch, Statistics statistics,
                     Real* __restrict__ peaks, Real* __restrict__ inverse_sums,
                     StoredState<Real>* __restrict__ emissions, Real* __restrict__ posterior) {
  const BatchShape& shape = batch.shape;
  const RowGroup<kRowThreads> group(shape.frames, shape.samples);
  const Storage* row = logits.row(group.t, group.n);
  const bool live = group.has_row && group.t < batch.live_frames(group.n);
  RowStatistics<Real> of_row{0, 1};
  if (statistics == Statistics::kCompute) {
    of_row = row_statistics<kRowThreads>(row, logits.stride_c, live ? int(shape.classes) : 0, group.thread);
  } else if (statistics == Statistics::kThere && live) {  // the same for all texts of the sample
    const int64_t at = group.n * shape.texts_per_sample * shape.frames + group.t;
    of_row = {peaks[at], inverse_sums[at]};
  }

  for (int64_t k = 0; k < shape.texts_per_sample; ++k) {
    const DeviceText text = batch.text(group.n, k);
    Real inverse_sum = of_row.inverse_sum;
    int in_bounds = true;
    if (live && text.valid) {
      const Real bound = statistics == Statistics::kNone ? Real(largest_log_prob(text.frames))
                                                         : std::numeric_limits<Real>::infinity();
      StoredState<Real>* to = emissions_of(emissions, shape, text) + group.t * (text.length + 1);
      for (int64_t i = group.thread; i <= text.length; i += kRowThreads) {
        const int64_t c = i < text.length ? batch.label(text, i) : batch.blank;
        // What is no label makes the loss NaN later.
        const bool is_class = c >= 0 && c < shape.classes;
        const Real x = is_class ? gpu::to_compute(row[c * logits.stride_c]) : kMinusInfinity<Real>;
        in_bounds &= x < bound;
        to[i].state = normalised(emission(x, of_row.peak, inverse_sum));
      }
    }
    if (statistics == Statistics::kNone) {
      in_bounds = gpu::folded_over_group<kRowThreads>(in_bounds, [](int a, int b) { return a & b; });
      if (!in_bounds) inverse_sum = std::numeric_limits<Real>::quiet_NaN();
    }
    if (group.has_row && posterior != nullptr && (text.valid || shape.padded)) {
      const int64_t first = shape.padded ? group.n * shape.max_length : text.first_label;
      // What concatenated targets hold behind the last sample belongs to it, as padding does.
      const bool last = group.n + 1 == shape.samples;
      const int64_t labels = shape.padded ? shape.max_length : last ? shape.labels - first : text.length;
      const int64_t written = text.frames * text.length;  // by the recursion
      for (int64_t i = written + group.t * kRowThreads + group.thread; i < shape.frames * labels;
           i += shape.frames * kRowThreads)
        posterior[shape.frames * first + i] = 0;
    }
    if (statistics != Statistics::kThere && group.has_row && group.thread == 0) {
      const int64_t at = text.slot * shape.frames + group.t;
      peaks[at] = live ? of_row.peak : Real(0);
      inverse_sums[at] = live ? inverse_sum : Real(0);
    }
  }
}

}  // namespace crnn::ctc_loss
