// Loops over one row of C classes, on the host.
//
// Rows are walked in blocks of kLanes elements: a constant trip count, so that each block becomes a few
// vector instructions on any instruction set. The last, incomplete block takes the same loop with a condition
// on each lane.
#pragma once

#include "common/exp2.h"
#include "common/half.h"

namespace crnn {

constexpr int kLanes = 16;

constexpr int64_t rounded_up_to_lanes(int64_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

// Halving with constant widths: a few shuffles, where a loop over a variable width is checked for overlap.
template <int kWidth = kLanes, class Real>
CRNN_INLINE Real sum_of_lanes(Real* lanes) {
  if constexpr (kWidth > 1) {
    for (int j = 0; j < kWidth / 2; ++j) lanes[j] += lanes[j + kWidth / 2];
    return sum_of_lanes<kWidth / 2>(lanes);
  }
  return lanes[0];
}

template <int kWidth = kLanes, class Real>
CRNN_INLINE Real largest_lane(Real* lanes) {
  if constexpr (kWidth > 1) {
    for (int j = 0; j < kWidth / 2; ++j) lanes[j] = larger(lanes[j], lanes[j + kWidth / 2]);
    return largest_lane<kWidth / 2>(lanes);
  }
  return lanes[0];
}

template <class Real>
CRNN_INLINE Real sum(const Real* x, int64_t count) {
  const int64_t whole = count / kLanes * kLanes;
  Real lanes[kLanes] = {};
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += x[i + j];
  for (int j = 0; j < kLanes; ++j) lanes[j] += j < count - whole ? x[whole + j] : Real(0);
  return sum_of_lanes(lanes);
}

// softmax(row)[c] = 2^((row[c] - peak) * log2(e)) * inverse_sum.
// Kept apart, because their logarithm (the usual log-sum-exp) rounds away digits of rows with a large offset.
template <class Real>
struct RowStatistics {
  Real peak;
  Real inverse_sum;  // NaN if the row holds NaN or +inf
};

template <class Real>
CRNN_INLINE Real softmax_term(Real x, Real peak) {
  return exp2_nonpositive((x - peak) * Real(kLog2E));
}

template <class Real>
struct Chunk {
  Real peak;
  Real sum;  // of 2^((x - peak) * log2(e))
};

// At most a few thousand elements, so that the second loop finds them in the first-level cache and a sum in
// Real of one lane's share loses nothing.
template <class Real>
CRNN_INLINE Chunk<Real> chunk_statistics(const Real* x, int64_t count) {
  constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();
  const int64_t whole = count / kLanes * kLanes;
  const int rest = int(count - whole);

  Real lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = kMinusInfinity;
  Real in_whole_blocks = kMinusInfinity;
#pragma omp simd reduction(max : in_whole_blocks)
  for (int64_t i = 0; i < whole; ++i) in_whole_blocks = x[i] > in_whole_blocks ? x[i] : in_whole_blocks;
  lanes[0] = in_whole_blocks;
  if (rest != 0)
    for (int j = 0; j < kLanes; ++j) {
      const Real value = j < rest ? x[whole + j] : kMinusInfinity;
      lanes[j] = value > lanes[j] ? value : lanes[j];
    }
  const Real largest = largest_lane(lanes);
  // Where all are -inf, any finite peak makes every term 0, and NaN still shows.
  const Real peak = largest == kMinusInfinity ? Real(0) : largest;

  for (int j = 0; j < kLanes; ++j) lanes[j] = 0;
  Real whole_blocks = 0;
#pragma omp simd reduction(+ : whole_blocks)
  for (int64_t i = 0; i < whole; ++i) whole_blocks += softmax_term(x[i], peak);
  lanes[0] = whole_blocks;
  if (rest != 0)
    for (int j = 0; j < kLanes; ++j) {
      const Real value = j < rest ? x[whole + j] : kMinusInfinity;
      lanes[j] += softmax_term(value, peak);
    }
  return {peak, sum_of_lanes(lanes)};
}

// One read of the row from memory, however long it is.
template <class Real>
CRNN_INLINE RowStatistics<Real> row_statistics(const Real* row, int64_t classes) {
  constexpr int64_t kChunk = 4096;
  Chunk<Real> total = chunk_statistics(row, smaller(classes, kChunk));
  for (int64_t begin = kChunk; begin < classes; begin += kChunk) {
    const Chunk<Real> next = chunk_statistics(row + begin, smaller(classes - begin, kChunk));
    if (next.sum == 0) continue;
    if (total.sum == 0) {
      total = next;
      continue;
    }
    const Real peak = larger(total.peak, next.peak);
    total.sum = total.sum * softmax_term(total.peak, peak) + next.sum * softmax_term(next.peak, peak);
    total.peak = peak;
  }
  return {total.peak, total.sum == 0 ? Real(1) : 1 / total.sum};
}

// out[c] = scale * 2^((row[c] - peak) * log2(e)); out may be row.
template <class Real>
CRNN_INLINE void scaled_softmax(const Real* row, int64_t classes, Real peak, Real scale, Real* out) {
  const int64_t whole = classes / kLanes * kLanes;
  const int rest = int(classes - whole);
  for (int64_t i = 0; i < whole; i += kLanes)
#pragma GCC ivdep
    for (int j = 0; j < kLanes; ++j) out[i + j] = softmax_term(row[i + j], peak) * scale;
  if (rest != 0)
#pragma GCC ivdep
    for (int j = 0; j < kLanes; ++j) {
      const Real value = j < rest ? row[whole + j] : Real(0);
      const Real term = softmax_term(value, peak) * scale;
      if (j < rest) out[whole + j] = term;
    }
}

// A contiguous row in the type of computation: the row itself where it is one, a copy in `scratch` elsewhere.
template <class Storage, class Real>
CRNN_INLINE const Real* read_row(const Storage* row, int64_t stride, int64_t classes, Real* scratch) {
  if constexpr (sizeof(Storage) == sizeof(Real)) {
    if (stride == 1) return row;
  }
  if (stride == 1) {
    for (int64_t c = 0; c < classes; ++c) scratch[c] = to_compute(row[c]);
  } else {
    for (int64_t c = 0; c < classes; ++c) scratch[c] = to_compute(row[c * stride]);
  }
  return scratch;
}

// Where a row can be computed in place: the row itself, or `scratch`, from which write_row stores it.
template <class Storage, class Real>
CRNN_INLINE Real* row_to_fill(Storage* row, int64_t stride, Real* scratch) {
  if constexpr (sizeof(Storage) == sizeof(Real)) {
    if (stride == 1) return row;
  }
  return scratch;
}

template <class Storage, class Real>
CRNN_INLINE void write_row(const Real* values, int64_t classes, Storage* row, int64_t stride) {
  if constexpr (sizeof(Storage) == sizeof(Real)) {
    if (values == row) return;
  }
  if (stride == 1) {
    for (int64_t c = 0; c < classes; ++c) row[c] = FromCompute<Storage>::convert(values[c]);
  } else {
    for (int64_t c = 0; c < classes; ++c) row[c * stride] = FromCompute<Storage>::convert(values[c]);
  }
}

}  // namespace crnn
