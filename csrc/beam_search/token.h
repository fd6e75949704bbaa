// A token of a frame, for host and device.
#pragma once

#include "common/simd.h"

namespace crnn::beam_search {

template <class Real>
struct Token {
  Real logit;
  int32_t token;

  // The order of the search: the more probable first, of equals the lower class.
  friend CRNN_INLINE bool operator<(const Token& a, const Token& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }
};

}  // namespace crnn::beam_search
