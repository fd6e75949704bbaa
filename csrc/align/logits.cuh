// Computes what the best paths need from the rows of logits, in one read.
#pragma once

#include "align/text_view.h"
#include "common/row_statistics.cuh"
#include "common/row_tile.cuh"
#include "common/statistics_mode.h"

namespace crnn::align {

// Computes the statistics of all rows within input_lengths, unless they are reused, and gathers the logits of
// all texts. Where a row makes the score of a text NaN, the logit of its blank is NaN.
//
// logits: (T, N, C)
template <int kThreadsPerRow, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlockSize)
    logits_kernel(TncView<const Storage> logits, DeviceBatch batch, StatisticsMode mode,
                  SliceBuffers<Real> memory) {
  constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
  const BatchShape& shape = batch.shape;
  const RowTile<kThreadsPerRow> tile(shape.frames, shape.samples);
  const Storage* row = logits.row(tile.t, tile.n);
  const bool has_input = tile.has_row && tile.t < batch.input_frames(tile.n);

  const int64_t at = tile.n * shape.frames + tile.t;
  Real log_inverse_sum = 0;
  if (mode == StatisticsMode::kReuse) {
    if (has_input) log_inverse_sum = memory.log_inverse_sum[at];
  } else {
    RowStatistics<Real> statistics{0, 1};
    if (mode == StatisticsMode::kCompute)
      statistics = compute_row_statistics<kThreadsPerRow>(row, logits.stride_c,
                                                          has_input ? int(shape.classes) : 0, tile.thread);
    log_inverse_sum = gpu::log(statistics.inverse_sum);
    if (has_input && tile.thread == 0) {
      memory.row_max[at] = statistics.row_max;
      memory.log_inverse_sum[at] = log_inverse_sum;
    }
  }

  for (int64_t k = 0; k < shape.texts_per_sample; ++k) {
    const DeviceText text = batch.text(tile.n, k);
    const bool needed = has_input && text.valid;
    Real* to =
        memory.logits + shape.frames * (text.target_offset + text.slice_index) + tile.t * (text.length + 1);
    int valid = log_inverse_sum == log_inverse_sum;
    for (int64_t i = tile.thread; needed && i < text.length; i += kThreadsPerRow) {
      const int64_t c = batch.label(text, i);
      // An invalid label makes the score NaN later.
      const bool is_class = c >= 0 && c < shape.classes;
      const Real x = is_class ? gpu::to_compute(row[c * logits.stride_c]) : Real(kImpossible);
      valid &= x < kInfinity;
      to[i] = x;
    }
    valid = gpu::tile_reduce<kThreadsPerRow>(valid, [](int a, int b) { return a & b; });
    if (needed && tile.thread == 0) {
      const Real blank = gpu::to_compute(row[batch.blank * logits.stride_c]);
      to[text.length] = valid && blank < kInfinity ? blank : std::numeric_limits<Real>::quiet_NaN();
    }
  }
}

}  // namespace crnn::align
