// The gradient's rows: softmax - occupancy, times the incoming gradient.
#pragma once

#include <algorithm>

#include "common/rows.h"
#include "common/stable.h"
#include "ctc_loss/ctc_loss.h"
#include "ctc_loss/occupancy.h"

namespace crnn::ctc_loss {

// Rows [begin, end) of the T*N rows.
template <class Storage>
struct GradientRows {
  using Real = typename ComputeType<Storage>::Real;

  template <int kBytes>
  static CRNN_INLINE void run(const BatchShape& shape, const Batch& batch, const Rows<const Storage>& logits,
                              const Rows<Storage>& gradient, int64_t blank, bool normalize,
                              const Saved<const Real>& saved, const Real* scale, RowScratch<Real>* scratch,
                              int64_t begin, int64_t end) {
    for (int64_t index = begin, t = begin / shape.samples, n = begin % shape.samples; index < end; ++index) {
      const auto classes = [&] { return scratch->classes(shape.classes); };
      const int64_t at = n * shape.frames + t;
      Storage* target_row = gradient.row(t, n);
      Real* row = row_to_fill(target_row, gradient.stride_c, classes);
      const Real peak = batch.is_live(t, n) ? trusted_peak(saved.peak[at], batch.valid[n] != 0,
                                                           batch.frames[n], batch.length[n])
                                            : std::numeric_limits<Real>::infinity();
      if (peak == std::numeric_limits<Real>::infinity()) {
        std::fill_n(row, shape.classes, Real(0));
      } else if (peak != peak) {
        std::fill_n(row, shape.classes, peak);
      } else {
        const int64_t length = batch.length[n];
        const Real* occupancy = saved.posterior + shape.frames * batch.first_label[n] + t * length;
        const int32_t* labels = batch.labels.data() + batch.first_label[n];
        const Real weight = scale[n];
        const Real blank_logit = to_compute(logits.row(t, n)[blank * logits.stride_c]);
        if (normalize) {
          const Real* source = read_row(logits.row(t, n), logits.stride_c, shape.classes, classes);
          scaled_softmax<kBytes>(source, shape.classes, peak, saved.inverse_sum[at] * weight, row);
        } else {
          std::fill_n(row, shape.classes, Real(0));
        }
        row[blank] -= weight * blank_occupancy(sum<kBytes>(occupancy, length), blank_logit - peak);
        for (int64_t i = 0; i < length; ++i) row[labels[i]] -= weight * occupancy[i];
      }
      write_row(row, shape.classes, target_row, gradient.stride_c);
      if (++n == shape.samples) n = 0, ++t;
    }
  }
};

}  // namespace crnn::ctc_loss
