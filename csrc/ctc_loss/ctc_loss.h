// What every backend of ctc_loss shares on torch's side: its arguments, checked once.
#pragma once

#include "common/arguments.h"
#include "ctc_loss/shape.h"

namespace crnn::ctc_loss {

constexpr const char* kOp = "ctc_loss";

inline Shape shape_of(int64_t frames, int64_t samples, int64_t classes, const Tensor& targets) {
  const bool padded = targets.dim() == 2;
  return {frames, samples, classes, padded ? targets.size(1) : 0, padded, targets.numel()};
}

// Shapes, dtypes, devices and options; not the values of lengths and targets, which may live on a GPU. In the
// header, because each backend is a library of its own.
inline Shape check_tensors(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                           const Tensor& target_lengths, int64_t blank, int64_t reduction) {
  check_logits(logits, blank, kOp);
  check(reduction >= 0 && reduction <= 2, kOp, "reduction must be 0, 1 or 2, and it is ", reduction);

  check_indices(targets, logits, kOp, "targets");
  check(targets.dim() == 1 || targets.dim() == 2, kOp, "targets must be (N, S) or concatenated, and it has ",
        targets.dim(), " dimensions");
  check(targets.dim() == 1 || targets.size(0) == logits.size(1), kOp, "targets must have N=", logits.size(1),
        " rows, and it has ", targets.size(0));
  check_lengths(input_lengths, logits, kOp, "input_lengths");
  check_lengths(target_lengths, logits, kOp, "target_lengths");
  return shape_of(logits.size(0), logits.size(1), logits.size(2), targets);
}

// What the backward pass gets besides.
inline void check_backward(const Tensor& grad_loss, const Tensor& logits, const Tensor& saved,
                           const Shape& shape, Reduction reduction) {
  const ScalarType type = compute_type(logits.scalar_type());
  check(saved.scalar_type() == type && saved.numel() == saved_elements(shape) &&
            saved.device() == logits.device(),
        kOp, "saved must be what the forward pass returned with_grad");
  check(grad_loss.scalar_type() == type && grad_loss.device() == logits.device() &&
            grad_loss.numel() == (reduction == Reduction::kNone ? shape.samples : 1),
        kOp, "grad_loss must have the dtype, device and shape of the loss");
}

}  // namespace crnn::ctc_loss
