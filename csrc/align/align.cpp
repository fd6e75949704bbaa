// Schema of align: the tensors of a Result, see align.h. targets may have K rows a sample.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "align(Tensor logits, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
      "bool normalize) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
