// Checks of the tensors that every operator takes. Shapes, dtypes and devices; not the values of lengths,
// which may live on a GPU.
#pragma once

#include "common/check.h"
#include "common/stable.h"

namespace crnn {

// logits: (T, N, C)
inline void check_logits(const Tensor& logits, int64_t blank, const char* op) {
  check(logits.dim() == 3, op, "logits must be (T, N, C), and it has ", logits.dim(), " dimensions");
  const int64_t classes = logits.size(2);
  check(classes > 0 && classes <= (int64_t(1) << 20), op, "logits must have 1 to 2^20 classes, and it has ",
        classes);
  check(blank >= 0 && blank < classes, op, "blank must be in [0, C=", classes, "), and it is ", blank);
}

// Labels or lengths, beside the logits that they belong to.
inline void check_indices(const Tensor& indices, const Tensor& logits, const char* op, const char* name) {
  check(is_index_type(indices.scalar_type()), op, name, " must be int32 or int64");
  check(indices.device() == logits.device(), op, name, " must be on the device of logits");
}

// lengths: (N,)
inline void check_lengths(const Tensor& lengths, const Tensor& logits, const char* op, const char* name) {
  check_indices(lengths, logits, op, name);
  const int64_t samples = logits.size(1);
  check(lengths.dim() == 1 && lengths.size(0) == samples, op, name, " must have N=", samples,
        " elements in one dimension, and it has ", lengths.numel(), " in ", lengths.dim());
}

}  // namespace crnn
