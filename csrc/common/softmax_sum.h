// The sum of a row's softmax terms in one read, by threads that share the row.
//
// softmax(row)[c] = 2^((row[c] - peak) * log2(e)) / sum; see common/rows.h, which has the host's way.
#pragma once

#include <limits>

#include "common/exp2.h"
#include "common/row_group.h"

namespace crnn {

template <class Real>
constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();

// softmax's term of x. Next to a peak of -inf, x is -inf or NaN: any finite peak makes that 0 or NaN.
template <class Real>
__device__ inline Real softmax_term_of(Real x, Real peak) {
  return gpu::exp2((x - (peak == kMinusInfinity<Real> ? Real(0) : peak)) * Real(kLog2E));
}

// A row, or the part of it that some threads have read.
template <class Real>
struct SoftmaxSum {
  Real peak;  // the largest number; NaN is passed over; -inf if there is none
  Real sum;   // of the terms relative to it; NaN if NaN or +inf were read

  static __device__ SoftmaxSum empty() { return {kMinusInfinity<Real>, 0}; }

  template <int kCount>
  __device__ void add(const Real (&values)[kCount]) {
    const Real before = peak;
    for (int j = 0; j < kCount; ++j) peak = larger(values[j], peak);
    sum *= softmax_term_of(before, peak);
    // Of a long row, a thread adds up thousands of terms: fewer roundings than one by one.
    Real of_values = 0;
    for (int j = 0; j < kCount; ++j) of_values += softmax_term_of(values[j], peak);
    sum += of_values;
  }
};

// What the parts that kRowThreads threads have read of a row add up to, relative to the row's peak: the same
// bits in each of them. Every thread of the block calls it.
template <int kRowThreads, class Real>
__device__ inline Real sum_of_parts(const SoftmaxSum<Real>& part, Real peak) {
  const Real sum = gpu::rounded_product(part.sum, softmax_term_of(part.peak, peak));
  return gpu::folded_over_group<kRowThreads>(sum, [](Real a, Real b) { return a + b; });
}

// The row of these parts, likewise.
template <int kRowThreads, class Real>
__device__ inline SoftmaxSum<Real> joined_parts(const SoftmaxSum<Real>& part) {
  Real peak = gpu::folded_over_group<kRowThreads>(part.peak, [](Real a, Real b) { return larger(a, b); });
  peak += 0;  // -0 becomes 0: of the two, threads may hold either
  return {peak, sum_of_parts<kRowThreads>(part, peak)};
}

// softmax(row)[c] = 2^((row[c] - peak) * log2(e)) * inverse_sum: a finite peak, and inverse_sum NaN if the
// row holds NaN or +inf.
template <class Real>
struct RowStatistics {
  Real peak, inverse_sum;
};

// 0 and 1 for no classes, and for nothing but -inf.
template <class Real>
__device__ inline RowStatistics<Real> statistics_of(const SoftmaxSum<Real>& row) {
  if (row.sum == 0) return {0, 1};
  return {row.peak == kMinusInfinity<Real> ? Real(0) : row.peak, 1 / row.sum};
}

// Of a row that kRowThreads threads share, in one read: the same bits in each of them. Every thread of the
// block calls it.
//
// row: (classes) with stride
template <int kRowThreads, class Storage>
__device__ inline auto row_statistics(const Storage* row, int64_t stride, int classes, int thread) {
  using Real = typename ComputeType<Storage>::Real;
  SoftmaxSum<Real> part = SoftmaxSum<Real>::empty();
  read_row<kRowThreads>(row, stride, classes, thread, [&](const auto& values, int) { part.add(values); });
  return statistics_of(joined_parts<kRowThreads>(part));
}

}  // namespace crnn
