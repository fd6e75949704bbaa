// Loops over one row of C classes on the host, in vectors of kBytes.
#pragma once

#include <limits>

#include "common/buffer.h"
#include "common/exp2.h"
#include "common/half.h"

namespace crnn {

// A multiple of the number of lanes of any float or double vector.
constexpr int kMaxLanes = 16;

constexpr int64_t ceil_div(int64_t n, int64_t divisor) {
  return (n + divisor - 1) / divisor;
}

constexpr int64_t round_up_to_lanes(int64_t n) {
  return ceil_div(n, kMaxLanes) * kMaxLanes;
}

// Grain size: the number of logits that are worth one thread, and the number of rows with that many.
constexpr int64_t kGrainSize = 16384;

inline int64_t rows_per_chunk(int64_t classes) {
  return maximum<int64_t>(1, kGrainSize / (classes + 64));
}

// Visits `count` >= one vector of elements: body(index) for each full vector. If elements remain, calls
// last_body(index, seen) for a last vector that ends at the last element; its first `seen` lanes were visited
// before. Nothing outside the array is read or written.
template <int kLanes, class Body, class LastBody>
CRNN_INLINE void for_each_vector(int64_t count, const Body& body, const LastBody& last_body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i);
  if (i < count) last_body(count - kLanes, i - (count - kLanes));
}

// Sets the first `seen` lanes to zero.
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

// Scratch memory of one thread for rows. It grows to the largest size requested so far.
template <class Real>
class RowScratch {
 public:
  Real* classes(int64_t count) { return classes_.ensure_capacity(count); }
  Real* labels(int64_t count) { return labels_.ensure_capacity(count); }

 private:
  Buffer<Real> classes_, labels_;
};

// A contiguous row in the compute type: the row itself if it already is one, otherwise a copy in scratch().
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

// The memory in which to compute an output row: the row itself, or scratch(), from which write_row stores it.
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
