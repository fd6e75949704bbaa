// The tokens of a frame by which prefixes may be extended, on the host.
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

// Rows are read in parts, of which most hold nothing that is wanted.
constexpr int64_t kSegment = 64;

template <class Real>
struct SegmentMaxima {
  // peaks: (parts)
  template <int kBytes>
  static CRNN_INLINE void run(const Real* row, int64_t classes, Real* peaks) {
    for (int64_t first = 0; first < classes; first += kSegment)
      *peaks++ = max_of_short_row<kBytes>(row + first, minimum(kSegment, classes - first));
  }
};

template <class Real>
class TokenSelector {
 public:
  // The best `most` tokens of a row with logits above `bound`, best first; neither the blank nor any with
  // -inf or NaN.
  const std::vector<Token<Real>>& select(const Real* row, int64_t classes, Real bound, int64_t most,
                                         int64_t blank) {
    const int64_t parts = ceil_div(classes, kSegment);
    const bool know_peaks = parts > most;
    if (know_peaks) {
      // So many parts have a token that is no worse, and one of them may be the blank.
      peaks_.resize(parts);
      run_vectorized<SegmentMaxima<Real>>(row, classes, peaks_.data());
      sorted_peaks_ = peaks_;
      std::nth_element(sorted_peaks_.begin(), sorted_peaks_.begin() + most, sorted_peaks_.end(),
                       std::greater<Real>());
      bound = maximum(bound, std::nextafter(sorted_peaks_[most], -std::numeric_limits<Real>::infinity()));
    }
    const int64_t room = minimum(classes, 2 * most) + kSegment;
    tokens_.resize(room);
    int64_t held = 0;
    for (int64_t part = 0; part < parts; ++part) {
      if (know_peaks && !(peaks_[part] > bound)) continue;
      const int64_t end = minimum(classes, (part + 1) * kSegment);
      for (int64_t c = part * kSegment; c < end; ++c) {
        tokens_[held] = {row[c], int32_t(c)};
        held += (row[c] > bound) & (c != blank);
      }
      if (held + kSegment > room && held > most) held = keep_best(held, most, &bound);
    }
    if (held > most) held = keep_best(held, most, &bound);
    tokens_.resize(held);
    std::sort(tokens_.begin(), tokens_.end());
    return tokens_;
  }

 private:
  int64_t keep_best(int64_t held, int64_t most, Real* bound) {
    std::nth_element(tokens_.begin(), tokens_.begin() + (most - 1), tokens_.begin() + held);
    *bound = tokens_[most - 1].logit;  // updated classes need more than that
    return most;
  }

  std::vector<Token<Real>> tokens_;
  std::vector<Real> peaks_, sorted_peaks_;
};

}  // namespace crnn::beam_search
