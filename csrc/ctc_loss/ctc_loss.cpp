// Schemas of ctc_loss and the check of its tensors.
//
//   ctc_loss           loss (() or (N,)) and what the backward pass needs (empty without with_grad)
//   ctc_loss_backward  gradient with respect to logits, in their dtype and strides
#include "ctc_loss/ctc_loss.h"

#include "common/check.h"

namespace crnn::ctc_loss {

Shape check_tensors(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                    const Tensor& target_lengths, int64_t blank, int64_t reduction) {
  check(logits.dim() == 3, kOp, "logits must be (T, N, C), and it has ", logits.dim(), " dimensions");
  Shape shape{};
  shape.frames = logits.size(0);
  shape.samples = logits.size(1);
  shape.classes = logits.size(2);
  check(shape.classes > 0 && shape.classes <= (int64_t(1) << 20), kOp,
        "logits must have 1 to 2^20 classes, and it has ", shape.classes);
  check(blank >= 0 && blank < shape.classes, kOp, "blank must be in [0, ", shape.classes, "), and it is ",
        blank);
  check(reduction >= 0 && reduction <= 2, kOp, "reduction must be 0, 1 or 2, and it is ", reduction);

  check(is_index_type(targets.scalar_type()), kOp, "targets must be int32 or int64");
  check(targets.dim() == 1 || targets.dim() == 2, kOp, "targets must be (N, S) or concatenated, and it has ",
        targets.dim(), " dimensions");
  shape.padded = targets.dim() == 2;
  check(!shape.padded || targets.size(0) == shape.samples, kOp, "targets must have N=", shape.samples,
        " rows, and it has ", targets.size(0));
  shape.max_length = shape.padded ? targets.size(1) : 0;
  shape.labels = targets.numel();

  const auto check_lengths = [&](const Tensor& lengths, const char* name) {
    check(is_index_type(lengths.scalar_type()), kOp, name, " must be int32 or int64");
    check(lengths.dim() == 1 && lengths.size(0) == shape.samples, kOp, name, " must have N=", shape.samples,
          " elements in one dimension, and it has ", lengths.numel(), " in ", lengths.dim());
  };
  check_lengths(input_lengths, "input_lengths");
  check_lengths(target_lengths, "target_lengths");
  return shape;
}

}  // namespace crnn::ctc_loss

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "ctc_loss(Tensor logits, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
      "int reduction, bool zero_infinity, bool normalize, bool validate, bool with_grad) -> (Tensor, "
      "Tensor)");
  m.def(
      "ctc_loss_backward(Tensor grad_loss, Tensor logits, Tensor targets, Tensor input_lengths, "
      "Tensor target_lengths, Tensor saved, int blank, int reduction, bool normalize) -> Tensor");
}
