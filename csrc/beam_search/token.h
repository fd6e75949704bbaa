// A token of a frame, for host and device.
#pragma once

#include "common/extended.h"

namespace crnn::beam_search {

template <class Real>
struct Token {
  Real logit;
  ExponentOf<Real> token;  // as wide as the logit, so that no byte is padding

  // The order of the search: the more probable first, of equals the lower class.
  friend CRNN_INLINE bool operator<(const Token& a, const Token& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }
};

}  // namespace crnn::beam_search
