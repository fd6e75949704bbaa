// Argument checks shared by all operators. Shapes, dtypes and devices are checked separately from the values
// of lengths, because those may live on a GPU.
#pragma once

#include "common/check.h"
#include "common/lengths.h"
#include "common/stable.h"

namespace crnn {

// logits: (T, N, C)
inline void check_logits(const Tensor& logits, int64_t blank, const char* op) {
  check(logits.dim() == 3, op, "logits must be (T, N, C), got ", logits.dim(), " dimensions");
  const int64_t classes = logits.size(2);
  check(classes > 0 && classes <= (int64_t(1) << 20), op, "logits must have 1 to 2^20 classes, got ",
        classes);
  check(blank >= 0 && blank < classes, op, "blank must be in [0, ", classes, "), got ", blank);
}

// Labels or lengths: an integer dtype, on the device of logits.
inline void check_indices(const Tensor& indices, const Tensor& logits, const char* op, const char* name) {
  check(is_index_type(indices.scalar_type()), op, name, " must be int32 or int64");
  check(indices.device() == logits.device(), op, name, " must be on the device of logits");
}

// lengths: (N,)
inline void check_lengths(const Tensor& lengths, const Tensor& logits, const char* op, const char* name) {
  check_indices(lengths, logits, op, name);
  const int64_t samples = logits.size(1);
  check(lengths.dim() == 1 && lengths.size(0) == samples, op, name, " must have shape (", samples, ",), got ",
        lengths.numel(), " elements in ", lengths.dim(), " dimensions");
}

// Checks the values of input_lengths (N,), which must be in host memory.
inline void check_input_lengths(const Tensor& input_lengths, int64_t frames, const char* op) {
  const IndexView length(input_lengths);
  for (int64_t n = 0; n < input_lengths.size(0); ++n)
    check(is_valid_length(length(n), frames), op, "input_lengths[", n, "] is ", length(n),
          ", but logits has T=", frames, " frames");
}

}  // namespace crnn
