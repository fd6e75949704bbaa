// From the rows of logits to the emissions that the recursion needs: those of blank and of the target's
// labels.
#pragma once

#include <algorithm>

#include "common/rows.h"
#include "common/stable.h"
#include "ctc_loss/batch.h"
#include "ctc_loss/recursion.h"

namespace crnn::ctc_loss {

// Log-probabilities that are taken as they are may be positive. Above this bound the exponents of a path
// could leave their integer, so such a number counts as +inf does.
constexpr double largest_log_prob(int64_t frames) {
  return double(1 << 26) / double(frames);
}

// From logits to the mantissas of their emissions, in place, and their exponents. Whole vectors.
template <int kBytes, class Real>
CRNN_INLINE void emissions(RowStatistics<Real> statistics, int64_t count, Real* values,
                           ExponentOf<Real>* exponents) {
  // As many lanes as vectors of double have.
  constexpr int kLanes = kBytes / int(sizeof(double));
  using Doubles = Vector<double, kBytes>;
  using Reals = Vector<Real, kLanes * sizeof(Real)>;
  for (int64_t i = 0; i < count; i += kLanes) {
    const Doubles above_peak =
        converted<Doubles>(load<Reals>(values + i)) - broadcast<Doubles>(statistics.peak);
    const Extended<Reals> term = exp2_extended<Reals>(above_peak * kLog2E);
    store(values + i, term.mantissa * broadcast<Reals>(statistics.inverse_sum));
    store(exponents + i, term.exponent);
  }
}

// Frames [begin, end) of sample n.
template <class Storage>
struct GatherEmissions {
  using Real = typename ComputeType<Storage>::Real;

  template <int kBytes>
  static CRNN_INLINE void run(const Batch& batch, const Rows<const Storage>& logits, int64_t classes,
                              int64_t blank, bool normalize, int64_t n, int64_t begin, int64_t end,
                              RowScratch<Real>* scratch, const Sample<Real>& sample) {
    const int64_t most_rows = rows_in_cache(classes);
    for (int64_t first = begin; first < end; first += most_rows)
      gather<kBytes>(logits, classes, blank, normalize, n, first, std::min(most_rows, end - first),
                     largest_log_prob(sample.frames), *scratch, sample);
  }

  // One step after the other for all of a few rows, so that no row waits for another.
  template <int kBytes>
  static CRNN_INLINE void gather(const Rows<const Storage>& logits, int64_t classes, int64_t blank,
                                 bool normalize, int64_t n, int64_t first, int64_t count, double largest,
                                 RowScratch<Real>& scratch, const Sample<Real>& sample) {
    const int64_t length = sample.target_length, stride = logits.stride_c;
    RowStatistics<Real> statistics[kMostRows];
    if (normalize) {
      const Real* rows[kMostRows] = {};
      for (int64_t r = 0; r < count; ++r)
        rows[r] = read_row(logits.row(first + r, n), stride, classes,
                           [&] { return scratch.classes(count * classes) + r * classes; });
      row_statistics<kBytes>(rows, count, classes, statistics);
    } else {
      std::fill_n(statistics, count, RowStatistics<Real>{Real(0), Real(1)});
    }

    // Of each row the labels and, behind them, blank.
    const int64_t pitch = rounded_up_to_lanes(length + 1);
    Real* values = scratch.emissions(count * pitch);
    ExponentOf<Real>* exponents = scratch.exponents(count * pitch);
    for (int64_t r = 0; r < count; ++r) {
      const Storage* source = logits.row(first + r, n);
      Real* row = values + r * pitch;
      if (stride == 1) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < length; ++i) row[i] = to_compute(source[sample.labels[i]]);
      } else {
        for (int64_t i = 0; i < length; ++i) row[i] = to_compute(source[sample.labels[i] * stride]);
      }
      row[length] = to_compute(source[blank * stride]);
      if (normalize) continue;
      for (int64_t i = 0; i <= length; ++i)
        if (!(row[i] < Real(largest))) statistics[r].inverse_sum = std::numeric_limits<Real>::quiet_NaN();
    }
    for (int64_t r = 0; r < count; ++r)
      emissions<kBytes>(statistics[r], length + 1, values + r * pitch, exponents + r * pitch);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t t = first + r;
      sample.peak[t] = statistics[r].peak;
      sample.inverse_sum[t] = statistics[r].inverse_sum;
      sample.blank_mantissa[t] = values[r * pitch + length];
      sample.blank_exponent[t] = exponents[r * pitch + length];
      copy_row<kBytes>(values + r * pitch, length, sample.label_mantissa + t * length);
      copy_row<kBytes>(exponents + r * pitch, length, sample.label_exponent + t * length);
    }
  }
};

}  // namespace crnn::ctc_loss
