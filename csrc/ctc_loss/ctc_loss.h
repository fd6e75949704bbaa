// What every backend of ctc_loss shares on torch's side: its arguments, checked once.
#pragma once

#include "forward_backward/saved.h"
#include "targets/batch.h"

namespace crnn::ctc_loss {

using namespace forward_backward;

constexpr const char* kOp = "ctc_loss";

// Shapes, dtypes, devices and options; not the values of lengths and targets, which may live on a GPU. In the
// header, because each backend is a library of its own.
inline BatchShape check_tensors(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                                const Tensor& target_lengths, int64_t blank, int64_t reduction,
                                int64_t longest_target) {
  check(reduction >= 0 && reduction <= 2, kOp, "reduction must be 0, 1 or 2, and it is ", reduction);
  const BatchShape shape =
      check_batch(logits, targets, input_lengths, target_lengths, blank, longest_target, kOp);
  check(shape.texts_per_sample == 1, kOp, "target_lengths must have N=", shape.samples,
        " elements, and it has ", target_lengths.numel());
  return shape;
}

// What the backward pass gets besides.
inline void check_backward(const Tensor& grad_loss, const Tensor& logits, const Tensor& saved,
                           const BatchShape& shape, Reduction reduction) {
  const ScalarType type = compute_type(logits.scalar_type());
  check(saved.scalar_type() == type && saved.numel() == saved_elements(shape) &&
            saved.device() == logits.device(),
        kOp, "saved must be what the forward pass returned with_grad");
  check(grad_loss.scalar_type() == type && grad_loss.device() == logits.device() &&
            grad_loss.numel() == (reduction == Reduction::kNone ? shape.samples : 1),
        kOp, "grad_loss must have the dtype, device and shape of the loss");
}

}  // namespace crnn::ctc_loss
