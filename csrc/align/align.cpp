// Schema of align, which returns the tensors of Result (align.h). targets may have K rows per sample. For
// longest_target see ctc_loss.cpp.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "align(Tensor logits, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
      "bool normalize, int longest_target=-1) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
