// The softmax statistics of a row in one read, computed by the threads that share the row. The host version
// is common/row_statistics.h.
#pragma once

#include <limits>

#include "common/exp2.h"
#include "common/row_tile.cuh"

namespace crnn {

template <class Real>
constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();

// The softmax term of x, also for row_max = -inf. Then x is -inf or NaN, and any finite maximum gives 0 or
// NaN.
template <class Real>
__device__ inline Real safe_softmax_term(Real x, Real row_max) {
  return gpu::exp2((x - (row_max == kMinusInfinity<Real> ? Real(0) : row_max)) * Real(kLog2E));
}

// The statistics of the part of a row that some threads have read.
template <class Real>
struct PartialSoftmax {
  Real row_max;  // ignores NaN; -inf if the part is empty
  Real sum;      // of the softmax terms relative to row_max; NaN if the part contains NaN or +inf

  static __device__ PartialSoftmax empty() { return {kMinusInfinity<Real>, 0}; }

  template <int kCount>
  __device__ void add(const Real (&values)[kCount]) {
    const Real previous_max = row_max;
    for (int j = 0; j < kCount; ++j) row_max = maximum(values[j], row_max);
    sum *= safe_softmax_term(previous_max, row_max);
    // A thread adds thousands of terms of a long row. Summing each vector first rounds less often.
    Real values_sum = 0;
    for (int j = 0; j < kCount; ++j) values_sum += safe_softmax_term(values[j], row_max);
    sum += values_sum;
  }
};

// The sum of the partial sums of kThreadsPerRow threads, relative to the row's maximum. All threads get the
// same bits. Every thread of the block must call this.
template <int kThreadsPerRow, class Real>
__device__ inline Real merge_partial_sums(const PartialSoftmax<Real>& part, Real row_max) {
  const Real sum = gpu::mul_rn(part.sum, safe_softmax_term(part.row_max, row_max));
  return gpu::tile_reduce<kThreadsPerRow>(sum, [](Real a, Real b) { return a + b; });
}

// The statistics of the whole row from its parts. The same rules apply.
template <int kThreadsPerRow, class Real>
__device__ inline PartialSoftmax<Real> merge_partial_softmax(const PartialSoftmax<Real>& part) {
  Real row_max = gpu::tile_reduce<kThreadsPerRow>(part.row_max, [](Real a, Real b) { return maximum(a, b); });
  row_max += 0;  // -0 becomes 0: threads may hold either of the two
  return {row_max, merge_partial_sums<kThreadsPerRow>(part, row_max)};
}

// softmax(row)[c] = 2^((row[c] - row_max) * log2(e)) * inverse_sum. row_max is finite; inverse_sum is NaN if
// the row contains NaN or +inf.
template <class Real>
struct RowStatistics {
  Real row_max, inverse_sum;
};

// Returns 0 and 1 for an empty row and for a row of -inf.
template <class Real>
__device__ inline RowStatistics<Real> to_row_statistics(const PartialSoftmax<Real>& row) {
  if (row.sum == 0) return {0, 1};
  return {row.row_max == kMinusInfinity<Real> ? Real(0) : row.row_max, 1 / row.sum};
}

// The statistics of a row shared by kThreadsPerRow threads, in one read. All threads get the same bits. Every
// thread of the block must call this.
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
