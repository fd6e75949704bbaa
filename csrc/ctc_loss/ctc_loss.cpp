// Schemas of ctc_loss.
//
//   ctc_loss           loss (() or (N,)) and what the backward pass needs (empty without with_grad)
//   ctc_loss_backward  gradient with respect to logits, in their dtype and strides
#include "common/stable.h"

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "ctc_loss(Tensor logits, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
      "int reduction, bool zero_infinity, bool normalize, bool validate, bool with_grad) -> (Tensor, "
      "Tensor)");
  m.def(
      "ctc_loss_backward(Tensor grad_loss, Tensor logits, Tensor targets, Tensor input_lengths, "
      "Tensor target_lengths, Tensor saved, int blank, int reduction, bool normalize) -> Tensor");
}
