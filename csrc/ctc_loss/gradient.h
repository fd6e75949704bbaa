// The rows of the gradient on the CPU: (softmax - posterior) * incoming gradient.
#pragma once

#include <algorithm>

#include "common/row_statistics.h"
#include "common/stable.h"
#include "ctc_loss/ctc_loss.h"
#include "forward_backward/saved.h"

namespace crnn::ctc_loss {

// Rows [begin, end) of the T * N rows.
template <class Storage>
struct GradientRows {
  using Real = typename ComputeType<Storage>::Real;

  template <int kBytes>
  static CRNN_INLINE void run(const BatchShape& shape, const Batch& batch,
                              const TncView<const Storage>& logits, const TncView<Storage>& gradient,
                              int64_t blank, bool normalize, const Saved<const Real>& saved,
                              const Real* scale, RowScratch<Real>* scratch, int64_t begin, int64_t end) {
    for (int64_t index = begin, t = begin / shape.samples, n = begin % shape.samples; index < end; ++index) {
      const auto classes = [&] { return scratch->classes(shape.classes); };
      const int64_t at = n * shape.frames + t;
      Storage* target_row = gradient.row(t, n);
      Real* row = output_row(target_row, gradient.stride_c, classes);
      const Real row_max = batch.has_frame(t, n) ? checked_row_max(saved.row_max[at], batch.valid[n] != 0,
                                                                   batch.frames[n], batch.length[n])
                                                 : std::numeric_limits<Real>::infinity();
      if (row_max == std::numeric_limits<Real>::infinity()) {
        std::fill_n(row, shape.classes, Real(0));
      } else if (row_max != row_max) {
        std::fill_n(row, shape.classes, row_max);
      } else {
        const int64_t length = batch.length[n];
        const Real* posterior = saved.posterior + shape.frames * batch.target_offsets[n] + t * length;
        const int32_t* labels = batch.labels.data() + batch.target_offsets[n];
        const Real weight = scale[n];
        const Real blank_logit = to_compute(logits.row(t, n)[blank * logits.stride_c]);
        if (normalize) {
          const Real* source = read_row(logits.row(t, n), logits.stride_c, shape.classes, classes);
          scaled_softmax<kBytes>(source, shape.classes, row_max, saved.inverse_sum[at] * weight, row);
        } else {
          std::fill_n(row, shape.classes, Real(0));
        }
        row[blank] -= weight * blank_posterior(sum<kBytes>(posterior, length), blank_logit - row_max);
        for (int64_t i = 0; i < length; ++i) row[labels[i]] -= weight * posterior[i];
      }
      write_row(row, shape.classes, target_row, gradient.stride_c);
      if (++n == shape.samples) n = 0, ++t;
    }
  }
};

}  // namespace crnn::ctc_loss
