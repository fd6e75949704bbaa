// Computes the emissions that the recursion needs from the rows of logits, in one read.
#pragma once

#include "common/emission.h"
#include "common/row_statistics.cuh"
#include "common/row_tile.cuh"
#include "common/statistics_mode.h"
#include "forward_backward/lattice_step.h"
#include "targets/device_batch.h"

namespace crnn::forward_backward {

// The emissions of a text: (T_n, S_m + 1), normalized; those of its labels, then that of blank. The texts are
// stored one after the other in an array of T * (labels + texts).
template <class Emission>
CRNN_INLINE Emission* text_emissions(Emission* emissions, const BatchShape& shape, const DeviceText& text) {
  return emissions + shape.frames * (text.target_offset + text.slice_index);
}

// Computes the statistics of all rows (0 after the end of a sample) for each text, unless they are reused,
// and the emissions of all rows within input_lengths.
//
// Also zeros the posteriors after the end of each sample, so that equal inputs give bitwise equal tensors.
// Skipped without a gradient (posterior is null) and where an invalid length leaves it unknown which text the
// memory belongs to.
//
// logits: (T, N, C); row_max, inverse_sum: (texts, T)
template <int kThreadsPerRow, class Storage, class Real>
__global__ void __launch_bounds__(kRowBlockSize)
    emissions_kernel(TncView<const Storage> logits, DeviceBatch batch, StatisticsMode mode,
                     Real* __restrict__ row_maxima, Real* __restrict__ inverse_sums,
                     PackedExtended<Real>* __restrict__ emissions, Real* __restrict__ posterior) {
  const BatchShape& shape = batch.shape;
  const RowTile<kThreadsPerRow> tile(shape.frames, shape.samples);
  const Storage* row = logits.row(tile.t, tile.n);
  const bool has_input = tile.has_row && tile.t < batch.input_frames(tile.n);
  RowStatistics<Real> statistics{0, 1};
  if (mode == StatisticsMode::kCompute) {
    statistics = compute_row_statistics<kThreadsPerRow>(row, logits.stride_c,
                                                        has_input ? int(shape.classes) : 0, tile.thread);
  } else if (mode == StatisticsMode::kReuse && has_input) {  // the same for all texts of the sample
    const int64_t at = tile.n * shape.texts_per_sample * shape.frames + tile.t;
    statistics = {row_maxima[at], inverse_sums[at]};
  }

  for (int64_t k = 0; k < shape.texts_per_sample; ++k) {
    const DeviceText text = batch.text(tile.n, k);
    Real inverse_sum = statistics.inverse_sum;
    int in_bounds = true;
    if (has_input && text.valid) {
      const Real bound = mode == StatisticsMode::kNone ? Real(max_log_prob(text.frames))
                                                       : std::numeric_limits<Real>::infinity();
      PackedExtended<Real>* to = text_emissions(emissions, shape, text) + tile.t * (text.length + 1);
      for (int64_t i = tile.thread; i <= text.length; i += kThreadsPerRow) {
        const int64_t c = i < text.length ? batch.label(text, i) : batch.blank;
        // An invalid label makes the loss NaN later.
        const bool is_class = c >= 0 && c < shape.classes;
        const Real x = is_class ? gpu::to_compute(row[c * logits.stride_c]) : kMinusInfinity<Real>;
        in_bounds &= x < bound;
        to[i].value = normalized(emission(x, statistics.row_max, inverse_sum));
      }
    }
    if (mode == StatisticsMode::kNone) {
      in_bounds = gpu::tile_reduce<kThreadsPerRow>(in_bounds, [](int a, int b) { return a & b; });
      if (!in_bounds) inverse_sum = std::numeric_limits<Real>::quiet_NaN();
    }
    if (tile.has_row && posterior != nullptr && (text.valid || shape.padded)) {
      const int64_t first = shape.padded ? tile.n * shape.padded_length : text.target_offset;
      // Concatenated labels after the last sample belong to that sample, like padding.
      const bool last = tile.n + 1 == shape.samples;
      const int64_t labels = shape.padded ? shape.padded_length : last ? shape.labels - first : text.length;
      const int64_t written = text.frames * text.length;  // by the recursion
      for (int64_t i = written + tile.t * kThreadsPerRow + tile.thread; i < shape.frames * labels;
           i += shape.frames * kThreadsPerRow)
        posterior[shape.frames * first + i] = 0;
    }
    if (mode != StatisticsMode::kReuse && tile.has_row && tile.thread == 0) {
      const int64_t at = text.slice_index * shape.frames + tile.t;
      row_maxima[at] = has_input ? statistics.row_max : Real(0);
      inverse_sums[at] = has_input ? inverse_sum : Real(0);
    }
  }
}

}  // namespace crnn::forward_backward
