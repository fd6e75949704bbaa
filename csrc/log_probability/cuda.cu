// log_probability on a GPU: the forward kernels of ctc_loss, which serve several texts a sample.
#include "ctc_loss/kernels.cuh"
#include "log_probability/log_probability.h"
#include "targets/located_batch.h"

namespace crnn::log_probability {
namespace {

Tensor log_probability_cuda(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                            const Tensor& target_lengths, int64_t blank, bool normalize, bool validate) {
  const BatchShape shape = check_batch(logits, targets, input_lengths, target_lengths, blank, kOp);
  const DeviceScope device(logits, kOp);
  if (validate) {  // waits for the device
    read_batch(shape, on_host(targets), on_host(input_lengths), on_host(target_lengths), blank, true, kOp);
  }
  const LocatedBatch batch(shape, blank, targets, input_lengths, target_lengths, device.stream());
  const ScalarType type = compute_type(logits.scalar_type());
  const Tensor result = new_tensor(logits, {shape.texts()}, type);
  const Tensor statistics = new_tensor(logits, {2 * shape.frames * shape.texts()}, type);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    using State = ctc_loss::StoredState<Real>;
    const Tensor emissions = scratch<State>(logits, ctc_loss::emission_elements(shape));
    const Tensor states = scratch<State>(logits, ctc_loss::state_elements(shape));
    const ctc_loss::RecursionMemory<Real> memory{data<State>(emissions), nullptr, data<State>(states),
                                                 ctc_loss::Saved<Real>(data<Real>(statistics), shape)};
    const ctc_loss::LossOptions options{ctc_loss::Reduction::kNone, false, false, true};
    ctc_loss::launch_ctc_loss<Storage, Real>(Rows<const Storage>(logits.const_data_ptr(), logits), *batch,
                                             normalize, memory, options, data<Real>(result), nullptr,
                                             device.stream());
  });
  return result;
}

}  // namespace
}  // namespace crnn::log_probability

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CRNN_DEVICE_KEY, m) {
  m.impl("log_probability", TORCH_BOX(&crnn::log_probability::log_probability_cuda));
}
