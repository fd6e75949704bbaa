// Computes the emissions that the recursion needs from the rows of logits: those of blank and of the target's
// labels.
#pragma once

#include <algorithm>

#include "common/emission.h"
#include "common/row_statistics.h"
#include "common/stable.h"
#include "common/statistics_mode.h"
#include "forward_backward/recursion.h"

namespace crnn::forward_backward {

// The emissions of frames [begin, end) of sample n.
template <class Storage>
struct GatherEmissions {
  using Real = typename ComputeType<Storage>::Real;

  template <int kBytes>
  static CRNN_INLINE void run(const TncView<const Storage>& logits, int64_t classes, int64_t blank,
                              StatisticsMode mode, int64_t n, int64_t begin, int64_t end,
                              RowScratch<Real>* scratch, const Sample<Real>& sample) {
    const int64_t max_rows = rows_in_cache(classes);
    for (int64_t first = begin; first < end; first += max_rows)
      gather<kBytes>(logits, classes, blank, mode, n, first, std::min(max_rows, end - first),
                     max_log_prob(sample.frames), *scratch, sample);
  }

  // One step at a time for a few rows: steps of different rows do not depend on each other.
  template <int kBytes>
  static CRNN_INLINE void gather(const TncView<const Storage>& logits, int64_t classes, int64_t blank,
                                 StatisticsMode mode, int64_t n, int64_t first, int64_t count, double bound,
                                 RowScratch<Real>& scratch, const Sample<Real>& sample) {
    // As many lanes as a vector of double has.
    using Reals = Vector<Real, kBytes / sizeof(double) * sizeof(Real)>;
    constexpr int kLanes = kLanesOf<Reals>;
    const int64_t length = sample.target_length, stride = logits.stride_c;
    Real row_max[kMaxRows] = {}, inverse_sum[kMaxRows];
    if (mode == StatisticsMode::kNone) {
      std::fill_n(inverse_sum, kMaxRows, Real(1));
    } else if (mode == StatisticsMode::kCompute) {
      ComputeRowStatistics<Storage>::template run<kBytes>(logits, classes, n, first, first + count, &scratch,
                                                          row_max, inverse_sum);
    } else {
      copy_row<kBytes>(sample.row_max + first, count, row_max);
      copy_row<kBytes>(sample.inverse_sum + first, count, inverse_sum);
    }

    Real blanks[kMaxRows] = {};
    ExponentOf<Real> blank_exponents[kMaxRows];
    const int64_t pitch = round_up_to_lanes(length);
    Real* labels = scratch.labels(count * pitch);
    for (int64_t r = 0; r < count; ++r) {
      const Storage* source = logits.row(first + r, n);
      Real* row = labels + r * pitch;
      blanks[r] = to_compute(source[blank * stride]);
      if (stride == 1) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < length; ++i) row[i] = to_compute(source[sample.labels[i]]);
      } else {
        for (int64_t i = 0; i < length; ++i) row[i] = to_compute(source[sample.labels[i] * stride]);
      }
      if (mode != StatisticsMode::kNone) continue;
      bool in_bounds = blanks[r] < Real(bound);
      for (int64_t i = 0; i < length; ++i) in_bounds &= row[i] < Real(bound);
      if (!in_bounds) inverse_sum[r] = std::numeric_limits<Real>::quiet_NaN();
    }

    for (int64_t r = 0; r < count; r += kLanes) {
      const Extended<Reals> p =
          emission(load<Reals>(blanks + r), load<Reals>(row_max + r), load<Reals>(inverse_sum + r));
      store(blanks + r, p.mantissa);
      store(blank_exponents + r, p.exponent);
    }
    if (mode != StatisticsMode::kReuse) {
      copy_row<kBytes>(row_max, count, sample.row_max + first);
      copy_row<kBytes>(inverse_sum, count, sample.inverse_sum + first);
    }
    copy_row<kBytes>(blanks, count, sample.blank_mantissa + first);
    copy_row<kBytes>(blank_exponents, count, sample.blank_exponent + first);

    for (int64_t r = 0; r < count; ++r) {
      const Real* row = labels + r * pitch;
      Real* mantissas = sample.label_mantissa + (first + r) * length;
      ExponentOf<Real>* exponents = sample.label_exponent + (first + r) * length;
      const auto write = [&](int64_t i, Real* mantissa, ExponentOf<Real>* exponent) CRNN_INLINE_LAMBDA {
        const Extended<Reals> p =
            emission(load<Reals>(row + i), broadcast<Reals>(row_max[r]), broadcast<Reals>(inverse_sum[r]));
        store(mantissa, p.mantissa);
        store(exponent, p.exponent);
      };
      int64_t i = 0;
      for (; i + kLanes <= length; i += kLanes) write(i, mantissas + i, exponents + i);
      if (i == length) continue;
      Real last_mantissas[kLanes];
      ExponentOf<Real> last_exponents[kLanes];
      write(i, last_mantissas, last_exponents);
      for (int64_t j = 0; i < length; ++i, ++j) {
        mantissas[i] = last_mantissas[j];
        exponents[i] = last_exponents[j];
      }
    }
  }
};

}  // namespace crnn::forward_backward
