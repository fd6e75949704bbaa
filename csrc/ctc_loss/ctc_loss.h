// Argument checks of ctc_loss, shared by its backends.
#pragma once

#include "forward_backward/saved.h"
#include "targets/batch.h"

namespace crnn::ctc_loss {

using namespace forward_backward;

constexpr const char* kOp = "ctc_loss";

// Checks shapes, dtypes, devices and options. Values of lengths and targets are not read: they may live on a
// GPU. In a header, because each backend is a separate library.
inline BatchShape check_tensors(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                                const Tensor& target_lengths, int64_t blank, int64_t reduction,
                                int64_t longest_target) {
  check(reduction >= 0 && reduction <= 2, kOp, "reduction must be 0, 1 or 2, got ", reduction);
  const BatchShape shape =
      check_batch(logits, targets, input_lengths, target_lengths, blank, longest_target, kOp);
  check(shape.texts_per_sample == 1, kOp, "target_lengths must have N=", shape.samples, " elements, got ",
        target_lengths.numel());
  return shape;
}

// Checks the additional arguments of the backward pass.
inline void check_backward(const Tensor& grad_loss, const Tensor& logits, const Tensor& saved,
                           const BatchShape& shape, Reduction reduction) {
  const ScalarType type = compute_type(logits.scalar_type());
  check(saved.scalar_type() == type && saved.numel() == saved_elements(shape) &&
            saved.device() == logits.device(),
        kOp, "saved must be the tensor that the forward pass returned with with_grad=True");
  check(grad_loss.scalar_type() == type && grad_loss.device() == logits.device() &&
            grad_loss.numel() == (reduction == Reduction::kNone ? shape.samples : 1),
        kOp, "grad_loss must have the dtype, device and shape of the loss");
}

}  // namespace crnn::ctc_loss
