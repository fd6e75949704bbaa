// A token of a frame, for host and device.
#pragma once

#include "common/extended_range.h"

namespace crnn::beam_search {

template <class Real>
struct Token {
  Real logit;
  ExponentOf<Real> token;  // as wide as the logit, so there are no padding bytes

  // The more probable token first; in a tie the lower class.
  friend CRNN_INLINE bool operator<(const Token& a, const Token& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }
};

}  // namespace crnn::beam_search
