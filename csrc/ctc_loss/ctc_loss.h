// What every backend of ctc_loss shares on torch's side: its arguments, checked once.
#pragma once

#include "common/arguments.h"
#include "ctc_loss/shape.h"

namespace crnn::ctc_loss {

constexpr const char* kOp = "ctc_loss";

// Shapes, dtypes, devices and options; not the values of lengths and targets, which may live on a GPU. In the
// header, because each backend is a library of its own.
inline Shape check_tensors(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                           const Tensor& target_lengths, int64_t blank, int64_t reduction) {
  check_logits(logits, blank, kOp);
  Shape shape{};
  shape.frames = logits.size(0);
  shape.samples = logits.size(1);
  shape.classes = logits.size(2);
  check(reduction >= 0 && reduction <= 2, kOp, "reduction must be 0, 1 or 2, and it is ", reduction);

  check_indices(targets, logits, kOp, "targets");
  check(targets.dim() == 1 || targets.dim() == 2, kOp, "targets must be (N, S) or concatenated, and it has ",
        targets.dim(), " dimensions");
  shape.padded = targets.dim() == 2;
  check(!shape.padded || targets.size(0) == shape.samples, kOp, "targets must have N=", shape.samples,
        " rows, and it has ", targets.size(0));
  shape.max_length = shape.padded ? targets.size(1) : 0;
  shape.labels = targets.numel();

  check_lengths(input_lengths, logits, kOp, "input_lengths");
  check_lengths(target_lengths, logits, kOp, "target_lengths");
  return shape;
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
