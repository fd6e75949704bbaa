// Schemas of ctc_loss.
//
//   ctc_loss           loss (() or (N,)) and what the backward pass needs (empty without with_grad)
//   ctc_loss_backward  gradient with respect to logits, in their dtype and strides
//
// longest_target: the labels of the longest target, where the caller knows it, -1 where not. It chooses the
// kernels on a GPU; on all devices a target that claims more breaks the rules.
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
