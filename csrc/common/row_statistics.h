// The softmax statistics of rows, on the host.
#pragma once

#include <algorithm>
#include <limits>

#include "common/rows.h"
#include "common/views.h"

namespace crnn {

// softmax(row)[c] = 2^((row[c] - row_max) * log2(e)) * inverse_sum; inverse_sum is NaN if the row contains
// NaN or +inf. The two statistics stay separate: combined into the usual log-sum-exp, they would lose digits
// for rows with a large offset.
template <class Value>
CRNN_INLINE Value softmax_term(Value x, Value row_max) {
  return exp2_nonpositive((x - row_max) * ElementOf<Value>(kLog2E));
}

// Rows up to this length stay in the L1 cache between two loops over them. A sum in Real over the elements of
// one lane stays accurate.
constexpr int64_t kShortRow = 4096;

// The maximum of a short row, ignoring NaN; -inf for an empty row.
template <int kBytes, class Real>
CRNN_INLINE Real max_of_short_row(const Real* x, int64_t count) {
  using Reals = Vector<Real, kBytes>;
  if constexpr (kLanesOf<Reals> > 1) {
    if (count < kLanesOf<Reals>) return max_of_short_row<narrower_bytes<Real>(kBytes)>(x, count);
  }
  Reals peaks = broadcast<Reals>(-std::numeric_limits<Real>::infinity());
  // This argument order ignores NaN.
  const auto raise = [&](int64_t i, int64_t = 0)
                         CRNN_INLINE_LAMBDA { peaks = maximum(load<Reals>(x + i), peaks); };
  for_each_vector<kLanesOf<Reals>>(count, raise, raise);
  return reduce_lanes<Maximum>(peaks);
}

// The maximum as an offset for softmax terms: 0 if all elements are -inf. Any finite offset then makes every
// term 0, and NaN still propagates.
template <int kBytes, class Real>
CRNN_INLINE Real max_or_zero_of_short_row(const Real* x, int64_t count) {
  const Real row_max = max_of_short_row<kBytes>(x, count);
  return row_max == -std::numeric_limits<Real>::infinity() ? Real(0) : row_max;
}

// The sum of the softmax terms of a short row.
template <int kBytes, class Real>
CRNN_INLINE Real softmax_sum_of_short_row(const Real* x, int64_t count, Real row_max) {
  using Reals = Vector<Real, kBytes>;
  if constexpr (kLanesOf<Reals> > 1) {
    if (count < kLanesOf<Reals>)
      return softmax_sum_of_short_row<narrower_bytes<Real>(kBytes)>(x, count, row_max);
  }
  Reals sums{};
  const auto term = [&](int64_t i) CRNN_INLINE_LAMBDA {
    return softmax_term(load<Reals>(x + i), broadcast<Reals>(row_max));
  };
  for_each_vector<kLanesOf<Reals>>(
      count, [&](int64_t i) CRNN_INLINE_LAMBDA { sums += term(i); },
      [&](int64_t i, int64_t seen) CRNN_INLINE_LAMBDA { sums += zero_first_lanes(term(i), seen); });
  return reduce_lanes<Plus>(sums);
}

// The first index of a value in a short row; `count` if it is absent.
template <int kBytes, class Real>
CRNN_INLINE int64_t find_in_short_row(const Real* x, int64_t count, Real value) {
  using Reals = Vector<Real, kBytes>;
  using Ints = ExponentOf<Reals>;
  if constexpr (kLanesOf<Reals> > 1) {
    if (count < kLanesOf<Reals>) return find_in_short_row<narrower_bytes<Real>(kBytes)>(x, count, value);
  }
  Ints first = broadcast<Ints>(count);
  const auto look = [&](int64_t i, int64_t = 0) CRNN_INLINE_LAMBDA {
    const Ints indices = lane_indices<Ints>() + broadcast<Ints>(i);
    first = load<Reals>(x + i) == broadcast<Reals>(value) ? minimum(indices, first) : first;
  };
  for_each_vector<kLanesOf<Reals>>(count, look, look);
  return reduce_lanes<Minimum>(first);
}

// Online softmax: combines the statistics of the parts of a row.
template <class Real>
class OnlineSoftmax {
 public:
  CRNN_INLINE void add(Real part_max, Real part_sum) {
    if (part_sum == 0) return;
    const Real higher = maximum(part_max, row_max_);
    sum_ = sum_ * softmax_term(row_max_, higher) + part_sum * softmax_term(part_max, higher);
    row_max_ = higher;
  }
  Real row_max() const { return sum_ == 0 ? Real(0) : row_max_; }
  Real inverse_sum() const { return 1 / (sum_ == 0 ? Real(1) : sum_); }

 private:
  Real row_max_ = -std::numeric_limits<Real>::infinity(), sum_ = 0;
};

// The statistics of a row of any length, read from memory once.
template <int kBytes, class Real>
CRNN_INLINE void long_row_statistics(const Real* row, int64_t classes, Real* row_max, Real* inverse_sum) {
  OnlineSoftmax<Real> total;
  for (int64_t begin = 0; begin < classes; begin += kShortRow) {
    const int64_t count = minimum(classes - begin, kShortRow);
    const Real part_max = max_or_zero_of_short_row<kBytes>(row + begin, count);
    total.add(part_max, softmax_sum_of_short_row<kBytes>(row + begin, count, part_max));
  }
  *row_max = total.row_max();
  *inverse_sum = total.inverse_sum();
}

// The number of rows processed together: few enough for the L1 cache, and enough independent steps per loop.
constexpr int kMaxRows = 32;

constexpr int64_t rows_in_cache(int64_t classes) {
  return classes >= kShortRow ? 1 : minimum<int64_t>(kMaxRows, kShortRow / classes);
}

// rows: (count) pointers to `classes` elements; count is at most rows_in_cache(classes). row_max,
// inverse_sum: (count)
template <int kBytes, class Real>
CRNN_INLINE void compute_row_statistics(const Real* const* rows, int64_t count, int64_t classes,
                                        Real* row_max, Real* inverse_sum) {
  if (classes > kShortRow) return long_row_statistics<kBytes>(*rows, classes, row_max, inverse_sum);
  for (int64_t r = 0; r < count; ++r) row_max[r] = max_or_zero_of_short_row<kBytes>(rows[r], classes);
  for (int64_t r = 0; r < count; ++r) {
    const Real sum = softmax_sum_of_short_row<kBytes>(rows[r], classes, row_max[r]);
    inverse_sum[r] = 1 / (sum == 0 ? Real(1) : sum);
  }
}

// The statistics of rows [begin, end) of sample n. row_max, inverse_sum: (end - begin)
template <class Storage>
struct ComputeRowStatistics {
  using Real = typename ComputeType<Storage>::Real;

  template <int kBytes>
  static CRNN_INLINE void run(const TncView<const Storage>& logits, int64_t classes, int64_t n, int64_t begin,
                              int64_t end, RowScratch<Real>* scratch, Real* row_max, Real* inverse_sum) {
    const int64_t max_rows = rows_in_cache(classes);
    for (int64_t first = begin; first < end; first += max_rows) {
      const int64_t count = std::min(max_rows, end - first);
      const Real* rows[kMaxRows] = {};
      for (int64_t r = 0; r < count; ++r)
        rows[r] = read_row(logits.row(first + r, n), logits.stride_c, classes,
                           [&] { return scratch->classes(count * classes) + r * classes; });
      compute_row_statistics<kBytes>(rows, count, classes, row_max + first - begin,
                                     inverse_sum + first - begin);
    }
  }
};

// out[c] = scale * 2^((row[c] - row_max) * log2(e)); out may alias row.
template <int kBytes, class Real>
CRNN_INLINE void scaled_softmax(const Real* row, int64_t classes, Real row_max, Real scale, Real* out) {
  using Reals = Vector<Real, kBytes>;
  constexpr int kLanes = kLanesOf<Reals>;
  if constexpr (kLanes > 1) {
    if (classes < kLanes)
      return scaled_softmax<narrower_bytes<Real>(kBytes)>(row, classes, row_max, scale, out);
  }
  // Loaded now, because in-place writes overwrite its first lanes.
  const Reals last = load<Reals>(row + classes - kLanes);
  const auto write = [&](int64_t i, Reals x) CRNN_INLINE_LAMBDA {
    store(out + i, softmax_term(x, broadcast<Reals>(row_max)) * broadcast<Reals>(scale));
  };
  for_each_vector<kLanes>(
      classes, [&](int64_t i) CRNN_INLINE_LAMBDA { write(i, load<Reals>(row + i)); },
      [&](int64_t i, int64_t) CRNN_INLINE_LAMBDA { write(i, last); });
}

}  // namespace crnn
