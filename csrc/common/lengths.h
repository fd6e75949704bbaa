// The rules for lengths and labels, for host and device.
#pragma once

#include "common/simd.h"

namespace crnn {

// Whether length is in [0, available].
CRNN_INLINE bool is_valid_length(int64_t length, int64_t available) {
  return length >= 0 && length <= available;
}

// The number of frames that a decoder reads. A length outside [0, T], which is not an error on a GPU, counts
// as 0.
CRNN_INLINE int64_t length_or_zero(int64_t length, int64_t frames) {
  return is_valid_length(length, frames) ? length : 0;
}

// Whether a target may contain this class.
CRNN_INLINE bool is_valid_label(int64_t label, int64_t classes, int64_t blank) {
  return label >= 0 && label < classes && label != blank;
}

}  // namespace crnn
