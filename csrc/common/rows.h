// Loops over one row of C classes, on the host, in vectors of kBytes.
#pragma once

#include <limits>

#include "common/buffer.h"
#include "common/exp2.h"
#include "common/half.h"

namespace crnn {

// Vectors of float and of double divide this number of elements.
constexpr int kMaxLanes = 16;

constexpr int64_t ceil_div(int64_t n, int64_t divisor) {
  return (n + divisor - 1) / divisor;
}

constexpr int64_t round_up_to_lanes(int64_t n) {
  return ceil_div(n, kMaxLanes) * kMaxLanes;
}

// Elements of logits that are worth a thread, and rows of so many.
constexpr int64_t kGrainSize = 16384;

inline int64_t rows_per_chunk(int64_t classes) {
  return maximum<int64_t>(1, kGrainSize / (classes + 64));
}

// Walks `count` numbers in vectors, each as body(index). If they are no whole number of vectors, the last
// vector is last_body(index, seen): it ends with the last number, and its first `seen` lanes have been met
// before. That reads and writes nothing outside; `count` is at least one vector.
template <int kLanes, class Body, class LastBody>
CRNN_INLINE void for_each_vector(int64_t count, const Body& body, const LastBody& last_body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i);
  if (i < count) last_body(count - kLanes, i - (count - kLanes));
}

// The lanes from `seen` on; zero in those before.
template <class Reals>
CRNN_INLINE Reals zero_first_lanes(Reals x, int64_t seen) {
  using Ints = ExponentOf<Reals>;
  return lane_indices<Ints>() < broadcast<Ints>(seen) ? broadcast<Reals>(0) : x;
}

template <int kBytes, class Real>
CRNN_INLINE Real sum(const Real* x, int64_t count) {
  using Reals = Vector<Real, kBytes>;
  if constexpr (kLanesOf<Reals> > 1) {
    if (count < kLanesOf<Reals>) return sum<narrower_bytes<Real>(kBytes)>(x, count);
  }
  Reals total{};
  for_each_vector<kLanesOf<Reals>>(
      count, [&](int64_t i) CRNN_INLINE_LAMBDA { total += load<Reals>(x + i); },
      [&](int64_t i, int64_t seen)
          CRNN_INLINE_LAMBDA { total += zero_first_lanes(load<Reals>(x + i), seen); });
  return reduce_lanes<Plus>(total);
}

template <int kBytes, class Element>
CRNN_INLINE void copy_row(const Element* from, int64_t count, Element* to) {
  using Elements = Vector<Element, kBytes>;
  if constexpr (kLanesOf<Elements> > 1) {
    if (count < kLanesOf<Elements>) return copy_row<narrower_bytes<Element>(kBytes)>(from, count, to);
  }
  const auto copy = [&](int64_t i, int64_t = 0)
                        CRNN_INLINE_LAMBDA { store(to + i, load<Elements>(from + i)); };
  for_each_vector<kLanesOf<Elements>>(count, copy, copy);
}

// softmax(row)[c] = 2^((row[c] - row_max) * log2(e)) * inverse_sum, with inverse_sum NaN if the row holds NaN
// or +inf. The two statistics are kept apart, because their logarithm (the usual log-sum-exp) rounds away
// digits of rows with a large offset.
template <class Value>
CRNN_INLINE Value softmax_term(Value x, Value row_max) {
  return exp2_nonpositive((x - row_max) * ElementOf<Value>(kLog2E));
}

// Rows up to this length stay in the first-level cache from one loop over them to the next, and a sum in Real
// of one lane's share of them loses nothing.
constexpr int64_t kShortRow = 4096;

// The largest number of a short row; NaN is passed over. -inf if there is none.
template <int kBytes, class Real>
CRNN_INLINE Real max_of_short_row(const Real* x, int64_t count) {
  using Reals = Vector<Real, kBytes>;
  if constexpr (kLanesOf<Reals> > 1) {
    if (count < kLanesOf<Reals>) return max_of_short_row<narrower_bytes<Real>(kBytes)>(x, count);
  }
  Reals peaks = broadcast<Reals>(-std::numeric_limits<Real>::infinity());
  // In this order of the arguments NaN is passed over.
  const auto raise = [&](int64_t i, int64_t = 0)
                         CRNN_INLINE_LAMBDA { peaks = maximum(load<Reals>(x + i), peaks); };
  for_each_vector<kLanesOf<Reals>>(count, raise, raise);
  return reduce_lanes<Maximum>(peaks);
}

// The same as a row_max for softmax terms: 0 if all are -inf. Then any finite row_max makes every term 0, and
// NaN still shows.
template <int kBytes, class Real>
CRNN_INLINE Real max_or_zero_of_short_row(const Real* x, int64_t count) {
  const Real row_max = max_of_short_row<kBytes>(x, count);
  return row_max == -std::numeric_limits<Real>::infinity() ? Real(0) : row_max;
}

// The sum of a short row's softmax terms.
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

// The first index at which a short row holds the value; `count` if it does not.
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

// The sum of a row's softmax terms, put together from those of its parts.
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
  Real inverse() const { return 1 / (sum_ == 0 ? Real(1) : sum_); }

 private:
  Real row_max_ = -std::numeric_limits<Real>::infinity(), sum_ = 0;
};

// A row of any length, read once from memory.
template <int kBytes, class Real>
CRNN_INLINE void long_row_statistics(const Real* row, int64_t classes, Real* row_max, Real* inverse_sum) {
  OnlineSoftmax<Real> total;
  for (int64_t begin = 0; begin < classes; begin += kShortRow) {
    const int64_t count = minimum(classes - begin, kShortRow);
    const Real part_max = max_or_zero_of_short_row<kBytes>(row + begin, count);
    total.add(part_max, softmax_sum_of_short_row<kBytes>(row + begin, count, part_max));
  }
  *row_max = total.row_max();
  *inverse_sum = total.inverse();
}

// Rows whose statistics are computed together, few enough to stay in the first-level cache: each loop over
// them has steps that do not wait for each other.
constexpr int kMaxRows = 32;

constexpr int64_t rows_in_cache(int64_t classes) {
  return classes >= kShortRow ? 1 : minimum<int64_t>(kMaxRows, kShortRow / classes);
}

// rows: (count), each of `classes` numbers; count is at most rows_in_cache(classes). row_max, inverse_sum:
// (count)
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

// out[c] = scale * 2^((row[c] - row_max) * log2(e)); out may be row.
template <int kBytes, class Real>
CRNN_INLINE void scaled_softmax(const Real* row, int64_t classes, Real row_max, Real scale, Real* out) {
  using Reals = Vector<Real, kBytes>;
  constexpr int kLanes = kLanesOf<Reals>;
  if constexpr (kLanes > 1) {
    if (classes < kLanes)
      return scaled_softmax<narrower_bytes<Real>(kBytes)>(row, classes, row_max, scale, out);
  }
  // Read before its first lanes are overwritten.
  const Reals last = load<Reals>(row + classes - kLanes);
  const auto put = [&](int64_t i, Reals x) CRNN_INLINE_LAMBDA {
    store(out + i, softmax_term(x, broadcast<Reals>(row_max)) * broadcast<Reals>(scale));
  };
  for_each_vector<kLanes>(
      classes, [&](int64_t i) CRNN_INLINE_LAMBDA { put(i, load<Reals>(row + i)); },
      [&](int64_t i, int64_t) CRNN_INLINE_LAMBDA { put(i, last); });
}

// Scratch memory of one thread that works on rows; it grows to what the thread asks for.
template <class Real>
class RowScratch {
 public:
  Real* classes(int64_t count) { return classes_.ensure_capacity(count); }
  Real* labels(int64_t count) { return labels_.ensure_capacity(count); }

 private:
  Buffer<Real> classes_, labels_;
};

// A contiguous row in the type of computation: the row itself where it is one, elsewhere a copy in what
// scratch() returns.
template <class Storage, class Scratch>
CRNN_INLINE const auto* read_row(const Storage* row, int64_t stride, int64_t classes,
                                 const Scratch& scratch) {
  using Real = typename ComputeType<Storage>::Real;
  if constexpr (std::is_same_v<Storage, Real>) {
    if (stride == 1) return row;
  }
  Real* values = scratch();
  if (stride == 1) {
    for (int64_t c = 0; c < classes; ++c) values[c] = to_compute(row[c]);
  } else {
    for (int64_t c = 0; c < classes; ++c) values[c] = to_compute(row[c * stride]);
  }
  return static_cast<const Real*>(values);
}

// Where a row can be computed: in place, or in what scratch() returns, from which write_row stores it.
template <class Storage, class Scratch>
CRNN_INLINE auto* output_row(Storage* row, int64_t stride, const Scratch& scratch) {
  using Real = typename ComputeType<Storage>::Real;
  if constexpr (std::is_same_v<Storage, Real>) {
    if (stride == 1) return row;
  }
  return static_cast<Real*>(scratch());
}

template <class Storage, class Real>
CRNN_INLINE void write_row(const Real* values, int64_t classes, Storage* row, int64_t stride) {
  if constexpr (std::is_same_v<Storage, Real>) {
    if (values == row) return;
  }
  if (stride == 1) {
    for (int64_t c = 0; c < classes; ++c) row[c] = FromCompute<Storage>::convert(values[c]);
  } else {
    for (int64_t c = 0; c < classes; ++c) row[c * stride] = FromCompute<Storage>::convert(values[c]);
  }
}

}  // namespace crnn
