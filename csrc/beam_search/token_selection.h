// Top-k selection of the tokens of a frame, on the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "beam_search/token.h"
#include "common/isa.h"
#include "common/row_statistics.h"

namespace crnn::beam_search {

// Rows are scanned in segments; most segments are skipped by their maxima.
constexpr int64_t kSegment = 64;

template <class Real>
struct SegmentMaxima {
  // maxima: (segments)
  template <int kBytes>
  static CRNN_INLINE void run(const Real* row, int64_t classes, Real* maxima) {
    for (int64_t first = 0; first < classes; first += kSegment)
      *maxima++ = max_of_short_row<kBytes>(row + first, minimum(kSegment, classes - first));
  }
};

template <class Real>
class TokenSelector {
 public:
  // The best k tokens of a row with logits above `bound`, best first. The blank, -inf and NaN are excluded.
  const std::vector<Token<Real>>& select(const Real* row, int64_t classes, Real bound, int64_t k,
                                         int64_t blank) {
    const int64_t segments = ceil_div(classes, kSegment);
    const bool use_maxima = segments > k;
    if (use_maxima) {
      // k + 1 segments have a maximum of at least this value, and only one of these may be the blank.
      maxima_.resize(segments);
      run_vectorized<SegmentMaxima<Real>>(row, classes, maxima_.data());
      sorted_maxima_ = maxima_;
      std::nth_element(sorted_maxima_.begin(), sorted_maxima_.begin() + k, sorted_maxima_.end(),
                       std::greater<Real>());
      bound = maximum(bound, std::nextafter(sorted_maxima_[k], -std::numeric_limits<Real>::infinity()));
    }
    const int64_t capacity = minimum(classes, 2 * k) + kSegment;
    tokens_.resize(capacity);
    int64_t count = 0;
    for (int64_t segment = 0; segment < segments; ++segment) {
      if (use_maxima && !(maxima_[segment] > bound)) continue;
      const int64_t end = minimum(classes, (segment + 1) * kSegment);
      for (int64_t c = segment * kSegment; c < end; ++c) {
        tokens_[count] = {row[c], int32_t(c)};
        count += (row[c] > bound) & (c != blank);
      }
      if (count + kSegment > capacity && count > k) count = keep_best(count, k, &bound);
    }
    if (count > k) count = keep_best(count, k, &bound);
    tokens_.resize(count);
    std::sort(tokens_.begin(), tokens_.end());
    return tokens_;
  }

 private:
  int64_t keep_best(int64_t count, int64_t k, Real* bound) {
    std::nth_element(tokens_.begin(), tokens_.begin() + (k - 1), tokens_.begin() + count);
    *bound = tokens_[k - 1].logit;  // exclusive: later classes lose ties
    return k;
  }

  std::vector<Token<Real>> tokens_;
  std::vector<Real> maxima_, sorted_maxima_;
};

}  // namespace crnn::beam_search
