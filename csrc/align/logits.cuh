// From the rows of logits to what the best paths need of them, in one read.
#pragma once

#include "align/strip.h"
#include "common/row_group.h"
#include "common/softmax_sum.h"
#include "targets/statistics.h"

namespace crnn::align {

// The normalisers of all live rows unless they are there, and the logits of all texts. Where a row leaves a
// text without a score, its blank's logit is NaN.
//
// logits: (T, N, C)
template <int kRowThreads, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlock)
    logits_kernel(Rows<const Storage> logits, DeviceBatch batch, Statistics statistics, Memory<Real> memory) {
  constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
  const BatchShape& shape = batch.shape;
  const RowGroup<kRowThreads> group(shape.frames, shape.samples);
  const Storage* row = logits.row(group.t, group.n);
  const bool live = group.has_row && group.t < batch.live_frames(group.n);

  const int64_t at = group.n * shape.frames + group.t;
  Real log_share = 0;
  if (statistics == Statistics::kThere) {
    if (live) log_share = memory.log_share[at];
  } else {
    RowStatistics<Real> of_row{0, 1};
    if (statistics == Statistics::kCompute)
      of_row = row_statistics<kRowThreads>(row, logits.stride_c, live ? int(shape.classes) : 0, group.thread);
    log_share = gpu::log(of_row.inverse_sum);
    if (live && group.thread == 0) {
      memory.peak[at] = of_row.peak;
      memory.log_share[at] = log_share;
    }
  }

  for (int64_t k = 0; k < shape.texts_per_sample; ++k) {
    const DeviceText text = batch.text(group.n, k);
    const bool needed = live && text.valid;
    Real* to = memory.logits + shape.frames * (text.first_label + text.slot) + group.t * (text.length + 1);
    int sound = log_share == log_share;
    for (int64_t i = group.thread; needed && i < text.length; i += kRowThreads) {
      const int64_t c = batch.label(text, i);
      // What is no label makes the score NaN later.
      const bool is_class = c >= 0 && c < shape.classes;
      const Real x = is_class ? gpu::to_compute(row[c * logits.stride_c]) : Real(kImpossible);
      sound &= x < kInfinity;
      to[i] = x;
    }
    sound = gpu::folded_over_group<kRowThreads>(sound, [](int a, int b) { return a & b; });
    if (needed && group.thread == 0) {
      const Real blank = gpu::to_compute(row[batch.blank * logits.stride_c]);
      to[text.length] = sound && blank < kInfinity ? blank : std::numeric_limits<Real>::quiet_NaN();
    }
  }
}

}  // namespace crnn::align
