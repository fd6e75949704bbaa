// Checks of values in host memory, for operators whose logits are on another device. Messages name the
// operator `op`.
//
//   targets_check        checks targets and lengths
//   input_lengths_check  checks input lengths only
#include "targets/batch.h"

namespace crnn {
namespace {

void targets_check_cpu(const Tensor& targets, const Tensor& input_lengths, const Tensor& target_lengths,
                       int64_t frames, int64_t classes, int64_t blank, const std::string& op) {
  for (const Tensor* tensor : {&targets, &input_lengths, &target_lengths})
    check(is_index_type(tensor->scalar_type()) && tensor->dim() >= 1 && tensor->dim() <= 2, op.c_str(),
          "targets and lengths must be int32 or int64, in one or two dimensions");
  const int64_t samples = input_lengths.size(0), texts = target_lengths.size(0);
  check(
      (samples == 0 ? texts == 0 : texts % samples == 0) && (targets.dim() == 1 || targets.size(0) == texts),
      op.c_str(), "targets, input_lengths and target_lengths must have the same number of samples");
  const BatchShape shape = make_batch_shape(frames, samples, classes, targets, target_lengths);
  read_batch(shape, targets, input_lengths, target_lengths, blank, true, op.c_str());
}

void input_lengths_check_cpu(const Tensor& input_lengths, int64_t frames, const std::string& op) {
  check_input_lengths(input_lengths, frames, op.c_str());
}

}  // namespace
}  // namespace crnn

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "targets_check(Tensor targets, Tensor input_lengths, Tensor target_lengths, int frames, int classes, "
      "int blank, str op) -> ()");
  m.def("input_lengths_check(Tensor input_lengths, int frames, str op) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CPU, m) {
  m.impl("targets_check", TORCH_BOX(&crnn::targets_check_cpu));
  m.impl("input_lengths_check", TORCH_BOX(&crnn::input_lengths_check_cpu));
}
