// Schema of log_probability, which returns (M,) for M = N * K rows of targets. For longest_target see
// ctc_loss.cpp.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "log_probability(Tensor logits, Tensor targets, Tensor input_lengths, Tensor target_lengths, int "
      "blank, bool normalize, bool validate, int longest_target=-1) -> Tensor");
}
