// The softmax statistics of a sample's rows, on the host; see common/rows.h.
#pragma once

#include <algorithm>

#include "common/rows.h"
#include "common/views.h"

namespace crnn {

// Of rows [begin, end) of sample n. peak, inverse_sum: (end - begin)
template <class Storage>
struct StatisticsOfRows {
  using Real = typename ComputeType<Storage>::Real;

  template <int kBytes>
  static CRNN_INLINE void run(const Rows<const Storage>& logits, int64_t classes, int64_t n, int64_t begin,
                              int64_t end, RowScratch<Real>* scratch, Real* peak, Real* inverse_sum) {
    const int64_t most_rows = rows_in_cache(classes);
    for (int64_t first = begin; first < end; first += most_rows) {
      const int64_t count = std::min(most_rows, end - first);
      const Real* rows[kMostRows] = {};
      for (int64_t r = 0; r < count; ++r)
        rows[r] = read_row(logits.row(first + r, n), logits.stride_c, classes,
                           [&] { return scratch->classes(count * classes) + r * classes; });
      row_statistics<kBytes>(rows, count, classes, peak + first - begin, inverse_sum + first - begin);
    }
  }
};

}  // namespace crnn
