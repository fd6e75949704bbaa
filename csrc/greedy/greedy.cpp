// Schema of greedy_decode. It returns the tensors of Result (greedy.h).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "greedy_decode(Tensor logits, Tensor input_lengths, int blank, bool normalize) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
