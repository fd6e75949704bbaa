// From the rows of logits to the emissions that the recursion needs: those of blank and of the target's
// labels.
#pragma once

#include <algorithm>

#include "common/emission.h"
#include "common/stable.h"
#include "ctc_loss/recursion.h"
#include "targets/row_statistics.h"
#include "targets/statistics.h"

namespace crnn::ctc_loss {

// Frames [begin, end) of sample n.
template <class Storage>
struct GatherEmissions {
  using Real = typename ComputeType<Storage>::Real;

  template <int kBytes>
  static CRNN_INLINE void run(const Rows<const Storage>& logits, int64_t classes, int64_t blank,
                              Statistics statistics, int64_t n, int64_t begin, int64_t end,
                              RowScratch<Real>* scratch, const Sample<Real>& sample) {
    const int64_t most_rows = rows_in_cache(classes);
    for (int64_t first = begin; first < end; first += most_rows)
      gather<kBytes>(logits, classes, blank, statistics, n, first, std::min(most_rows, end - first),
                     largest_log_prob(sample.frames), *scratch, sample);
  }

  // One step after the other for all of a few rows, so that no row waits for another.
  template <int kBytes>
  static CRNN_INLINE void gather(const Rows<const Storage>& logits, int64_t classes, int64_t blank,
                                 Statistics statistics, int64_t n, int64_t first, int64_t count,
                                 double largest, RowScratch<Real>& scratch, const Sample<Real>& sample) {
    // As many lanes as vectors of double have.
    using Reals = Vector<Real, kBytes / sizeof(double) * sizeof(Real)>;
    constexpr int kLanes = kLanesOf<Reals>;
    const int64_t length = sample.target_length, stride = logits.stride_c;
    Real peak[kMostRows] = {}, inverse_sum[kMostRows];
    if (statistics == Statistics::kNone) {
      std::fill_n(inverse_sum, kMostRows, Real(1));
    } else if (statistics == Statistics::kCompute) {
      StatisticsOfRows<Storage>::template run<kBytes>(logits, classes, n, first, first + count, &scratch,
                                                      peak, inverse_sum);
    } else {
      copy_row<kBytes>(sample.peak + first, count, peak);
      copy_row<kBytes>(sample.inverse_sum + first, count, inverse_sum);
    }

    Real blanks[kMostRows] = {};
    ExponentOf<Real> blank_exponents[kMostRows];
    const int64_t pitch = rounded_up_to_lanes(length);
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
      if (statistics != Statistics::kNone) continue;
      bool in_bounds = blanks[r] < Real(largest);
      for (int64_t i = 0; i < length; ++i) in_bounds &= row[i] < Real(largest);
      if (!in_bounds) inverse_sum[r] = std::numeric_limits<Real>::quiet_NaN();
    }

    for (int64_t r = 0; r < count; r += kLanes) {
      const Extended<Reals> p =
          emission(load<Reals>(blanks + r), load<Reals>(peak + r), load<Reals>(inverse_sum + r));
      store(blanks + r, p.mantissa);
      store(blank_exponents + r, p.exponent);
    }
    if (statistics != Statistics::kThere) {
      copy_row<kBytes>(peak, count, sample.peak + first);
      copy_row<kBytes>(inverse_sum, count, sample.inverse_sum + first);
    }
    copy_row<kBytes>(blanks, count, sample.blank_mantissa + first);
    copy_row<kBytes>(blank_exponents, count, sample.blank_exponent + first);

    for (int64_t r = 0; r < count; ++r) {
      const Real* row = labels + r * pitch;
      Real* mantissas = sample.label_mantissa + (first + r) * length;
      ExponentOf<Real>* exponents = sample.label_exponent + (first + r) * length;
      const auto put = [&](int64_t i, Real* mantissa, ExponentOf<Real>* exponent) CRNN_INLINE_LAMBDA {
        const Extended<Reals> p =
            emission(load<Reals>(row + i), broadcast<Reals>(peak[r]), broadcast<Reals>(inverse_sum[r]));
        store(mantissa, p.mantissa);
        store(exponent, p.exponent);
      };
      int64_t i = 0;
      for (; i + kLanes <= length; i += kLanes) put(i, mantissas + i, exponents + i);
      if (i == length) continue;
      Real last_mantissas[kLanes];
      ExponentOf<Real> last_exponents[kLanes];
      put(i, last_mantissas, last_exponents);
      for (int64_t j = 0; i < length; ++i, ++j) {
        mantissas[i] = last_mantissas[j];
        exponents[i] = last_exponents[j];
      }
    }
  }
};

}  // namespace crnn::ctc_loss
