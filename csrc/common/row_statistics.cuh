// The sum of a row's softmax terms in one read, by threads that share the row.
//
// softmax(row)[c] = 2^((row[c] - row_max) * log2(e)) / sum; see common/rows.h, which has the host's way.
#pragma once

#include <limits>

#include "common/exp2.h"
#include "common/row_tile.cuh"

namespace crnn {

template <class Real>
constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();

// softmax's term of x. Next to a row_max of -inf, x is -inf or NaN: any finite row_max makes that 0 or NaN.
template <class Real>
__device__ inline Real safe_softmax_term(Real x, Real row_max) {
  return gpu::exp2((x - (row_max == kMinusInfinity<Real> ? Real(0) : row_max)) * Real(kLog2E));
}

// A row, or the part of it that some threads have read.
template <class Real>
struct PartialSoftmax {
  Real row_max;  // the largest number; NaN is passed over; -inf if there is none
  Real sum;      // of the terms relative to it; NaN if NaN or +inf were read

  static __device__ PartialSoftmax empty() { return {kMinusInfinity<Real>, 0}; }

  template <int kCount>
  __device__ void add(const Real (&values)[kCount]) {
    const Real previous_max = row_max;
    for (int j = 0; j < kCount; ++j) row_max = maximum(values[j], row_max);
    sum *= safe_softmax_term(previous_max, row_max);
    // Of a long row, a thread adds up thousands of terms: fewer roundings than one by one.
    Real values_sum = 0;
    for (int j = 0; j < kCount; ++j) values_sum += safe_softmax_term(values[j], row_max);
    sum += values_sum;
  }
};

// What the parts that kThreadsPerRow threads have read of a row add up to, relative to the row's row_max: the
// same bits in each of them. Every thread of the block calls it.
template <int kThreadsPerRow, class Real>
__device__ inline Real merge_partial_sums(const PartialSoftmax<Real>& part, Real row_max) {
  const Real sum = gpu::mul_rn(part.sum, safe_softmax_term(part.row_max, row_max));
  return gpu::tile_reduce<kThreadsPerRow>(sum, [](Real a, Real b) { return a + b; });
}

// The row of these parts, likewise.
template <int kThreadsPerRow, class Real>
__device__ inline PartialSoftmax<Real> merge_partial_softmax(const PartialSoftmax<Real>& part) {
  Real row_max = gpu::tile_reduce<kThreadsPerRow>(part.row_max, [](Real a, Real b) { return maximum(a, b); });
  row_max += 0;  // -0 becomes 0: of the two, threads may hold either
  return {row_max, merge_partial_sums<kThreadsPerRow>(part, row_max)};
}

// softmax(row)[c] = 2^((row[c] - row_max) * log2(e)) * inverse_sum: a finite row_max, and inverse_sum NaN if
// the row holds NaN or +inf.
template <class Real>
struct RowStatistics {
  Real row_max, inverse_sum;
};

// 0 and 1 for no classes, and for nothing but -inf.
template <class Real>
__device__ inline RowStatistics<Real> to_row_statistics(const PartialSoftmax<Real>& row) {
  if (row.sum == 0) return {0, 1};
  return {row.row_max == kMinusInfinity<Real> ? Real(0) : row.row_max, 1 / row.sum};
}

// Of a row that kThreadsPerRow threads share, in one read: the same bits in each of them. Every thread of the
// block calls it.
//
// row: (classes) with stride
template <int kThreadsPerRow, class Storage>
__device__ inline auto compute_row_statistics(const Storage* row, int64_t stride, int classes, int thread) {
  using Real = typename ComputeType<Storage>::Real;
  PartialSoftmax<Real> part = PartialSoftmax<Real>::empty();
  read_row<kThreadsPerRow>(row, stride, classes, thread, [&](const auto& values, int) { part.add(values); });
  return to_row_statistics(merge_partial_softmax<kThreadsPerRow>(part));
}

}  // namespace crnn
