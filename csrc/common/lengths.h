// The rules for lengths and labels, for host and device.
#pragma once

#include "common/simd.h"

namespace crnn {

// Is it the number of some of `available` elements?
CRNN_INLINE bool is_valid_length(int64_t length, int64_t available) {
  return length >= 0 && length <= available;
}

// The frames that a decoder reads: a length outside [0, T] (those on a GPU are not checked) stands for none.
CRNN_INLINE int64_t length_or_zero(int64_t length, int64_t frames) {
  return is_valid_length(length, frames) ? length : 0;
}

// Is it a class that a target may hold?
CRNN_INLINE bool is_valid_label(int64_t label, int64_t classes, int64_t blank) {
  return label >= 0 && label < classes && label != blank;
}

}  // namespace crnn
