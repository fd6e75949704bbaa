// The softmax statistics of a sample's rows, on the host; see common/rows.h.
#pragma once

#include <algorithm>

#include "common/rows.h"
#include "common/views.h"

namespace crnn {

// Of rows [begin, end) of sample n. row_max, inverse_sum: (end - begin)
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

}  // namespace crnn
