// ctc_loss on a GPU: the operator, which launches the kernels.
#include "ctc_loss/ctc_loss.h"
#include "ctc_loss/kernels.cuh"
#include "forward_backward/forward.h"
#include "targets/batch_with_offsets.h"

namespace crnn::ctc_loss {
namespace {

std::tuple<Tensor, Tensor> ctc_loss_cuda(const Tensor& logits, const Tensor& targets,
                                         const Tensor& input_lengths, const Tensor& target_lengths,
                                         int64_t blank, int64_t reduction_code, bool zero_infinity,
                                         bool normalize, bool validate, bool with_grad,
                                         int64_t longest_target) {
  const BatchShape shape =
      check_tensors(logits, targets, input_lengths, target_lengths, blank, reduction_code, longest_target);
  const DeviceScope device(logits, kOp);
  if (validate) {  // waits for the device
    read_batch(shape, to_cpu(targets), to_cpu(input_lengths), to_cpu(target_lengths), blank, true, kOp);
  }
  const Reduction reduction = Reduction(reduction_code);
  const ScalarType type = compute_type(logits.scalar_type());
  const bool reduced = reduction != Reduction::kNone;
  const BatchWithOffsets batch(shape, blank, targets, input_lengths, target_lengths, device.stream());
  const Tensor loss = reduced ? new_tensor(logits, {}, type) : new_tensor(logits, {shape.samples}, type);
  const Tensor saved = new_tensor(logits, {with_grad ? saved_elements(shape) : 0}, type);
  run_forward(logits, *batch, normalize, LossOptions{reduction, zero_infinity, with_grad}, loss, saved,
              device.stream());
  return {loss, saved};
}

Tensor ctc_loss_backward_cuda(const Tensor& grad_loss, const Tensor& logits, const Tensor& targets,
                              const Tensor& input_lengths, const Tensor& target_lengths, const Tensor& saved,
                              int64_t blank, int64_t reduction_code, bool normalize, int64_t longest_target) {
  const BatchShape shape =
      check_tensors(logits, targets, input_lengths, target_lengths, blank, reduction_code, longest_target);
  const Reduction reduction = Reduction(reduction_code);
  check_backward(grad_loss, logits, saved, shape, reduction);
  const DeviceScope device(logits, kOp);
  const BatchWithOffsets batch(shape, blank, targets, input_lengths, target_lengths, device.stream());
  const Tensor gradient = torch::stable::empty_like(logits);
  const Tensor scales = new_tensor(logits, {shape.samples}, compute_type(logits.scalar_type()));
  const Tensor occurrences = scratch<Occurrence>(logits, shape.labels);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    launch_ctc_loss_backward<Storage, Real>(
        TncView<const Storage>(logits.const_data_ptr(), logits),
        TncView<Storage>(data<Storage>(gradient), gradient), *batch, normalize, reduction,
        static_cast<const Real*>(grad_loss.const_data_ptr()),
        reduction == Reduction::kNone ? grad_loss.stride(0) : 0,
        Saved<const Real>(static_cast<const Real*>(saved.const_data_ptr()), shape), data<Real>(scales),
        data<Occurrence>(occurrences), device.stream());
  });
  return gradient;
}

}  // namespace
}  // namespace crnn::ctc_loss

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CRNN_DISPATCH_KEY, m) {
  m.impl("ctc_loss", TORCH_BOX(&crnn::ctc_loss::ctc_loss_cuda));
  m.impl("ctc_loss_backward", TORCH_BOX(&crnn::ctc_loss::ctc_loss_backward_cuda));
}
