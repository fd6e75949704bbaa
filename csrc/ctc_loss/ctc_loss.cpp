// Schemas of ctc_loss.
//
//   ctc_loss           returns the loss, () or (N,), and the tensor saved for the backward pass, which is
//                      empty without with_grad
//   ctc_loss_backward  returns the gradient with respect to logits, in their dtype and strides
//
// longest_target: number of labels of the longest target, or -1 if unknown. It selects the kernels on a GPU;
// on all devices, a longer target is invalid.
#include "common/stable.h"

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "ctc_loss(Tensor logits, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
      "int reduction, bool zero_infinity, bool normalize, bool validate, bool with_grad, "
      "int longest_target=-1) -> (Tensor, Tensor)");
  m.def(
      "ctc_loss_backward(Tensor grad_loss, Tensor logits, Tensor targets, Tensor input_lengths, "
      "Tensor target_lengths, Tensor saved, int blank, int reduction, bool normalize, "
      "int longest_target=-1) -> Tensor");
}
