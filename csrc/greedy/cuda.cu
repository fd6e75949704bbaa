// Greedy decoding on a GPU: the operator, which launches the kernels.
#include "common/cuda_stream.h"
#include "greedy/greedy.h"
#include "greedy/kernels.cuh"

namespace crnn::greedy {
namespace {

auto greedy_decode_cuda(const Tensor& logits, const Tensor& input_lengths, int64_t blank, bool normalize) {
  const Shape shape = check_tensors(logits, input_lengths, blank);
  const DeviceScope device(logits, kOp);
  const Result result(logits, shape);
  const Tensor best_class = new_tensor(logits, {shape.samples, shape.frames}, ScalarType::Int);
  const Tensor best_logp =
      new_tensor(logits, {shape.samples, shape.frames}, compute_type(logits.scalar_type()));
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    launch_greedy_decode<Storage, Real>(TncView<const Storage>(logits.const_data_ptr(), logits),
                                        IndexView(input_lengths), shape.frames, shape.samples, shape.classes,
                                        int32_t(blank), normalize, data<int32_t>(best_class),
                                        data<Real>(best_logp), result.view<Real>(), device.stream());
  });
  return result.tuple();
}

}  // namespace
}  // namespace crnn::greedy

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CRNN_DISPATCH_KEY, m) {
  m.impl("greedy_decode", TORCH_BOX(&crnn::greedy::greedy_decode_cuda));
}
