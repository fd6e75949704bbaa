// log_probability on a GPU: the forward kernels of ctc_loss for several texts per sample.
#include "forward_backward/forward.h"
#include "log_probability/log_probability.h"
#include "targets/batch_with_offsets.h"

namespace crnn::log_probability {
namespace {

Tensor log_probability_cuda(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                            const Tensor& target_lengths, int64_t blank, bool normalize, bool validate,
                            int64_t longest_target) {
  const BatchShape shape =
      check_batch(logits, targets, input_lengths, target_lengths, blank, longest_target, kOp);
  const DeviceScope device(logits, kOp);
  if (validate) {  // waits for the device
    read_batch(shape, to_cpu(targets), to_cpu(input_lengths), to_cpu(target_lengths), blank, true, kOp);
  }
  const BatchWithOffsets batch(shape, blank, targets, input_lengths, target_lengths, device.stream());
  const Tensor result = new_tensor(logits, {shape.texts()}, compute_type(logits.scalar_type()));
  const Tensor nothing_saved = new_tensor(logits, {0}, result.scalar_type());
  const forward_backward::LossOptions options{forward_backward::Reduction::kNone, false, false, true};
  forward_backward::run_forward(logits, *batch, normalize, options, result, nothing_saved, device.stream());
  return result;
}

}  // namespace
}  // namespace crnn::log_probability

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CRNN_DISPATCH_KEY, m) {
  m.impl("log_probability", TORCH_BOX(&crnn::log_probability::log_probability_cuda));
}
