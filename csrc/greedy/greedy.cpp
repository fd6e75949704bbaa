// Schemas of greedy_decode.
//
//   greedy_decode        the tensors of a Result, see greedy.h
//   greedy_decode_check  refuses lengths in the host's memory that break their rule, for logits elsewhere
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "greedy_decode(Tensor logits, Tensor input_lengths, int blank, bool normalize) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("greedy_decode_check(Tensor input_lengths, int frames) -> ()");
}
