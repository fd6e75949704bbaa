// The schema of greedy_decode: the tensors of a Result, see greedy.h.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "greedy_decode(Tensor logits, Tensor input_lengths, int blank, bool normalize) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
