// align on a GPU: the operator, which launches the kernels.
#include "align/align.h"
#include "align/kernels.cuh"
#include "targets/batch_with_offsets.h"

namespace crnn::align {
namespace {

auto align_cuda(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                const Tensor& target_lengths, int64_t blank, bool normalize, int64_t longest_target) {
  const BatchShape shape =
      check_batch(logits, targets, input_lengths, target_lengths, blank, longest_target, kOp);
  const DeviceScope device(logits, kOp);
  const BatchWithOffsets batch(shape, blank, targets, input_lengths, target_lengths, device.stream());
  const Result result(logits, shape);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    const BatchShape slice = choose_slice_shape(shape, scratch_bytes<Real>);
    const int64_t frames = slice.frames, rows = frames * slice.samples, pairs = pair_elements(slice);
    const Tensor moves = scratch<Word>(logits, num_words(frames) * pairs);
    const Tensor states = scratch<ScorePair<double>>(logits, state_elements(slice));
    const Tensor path = scratch<int32_t>(logits, frames * slice.texts());
    const Tensor gathered = scratch<Real>(logits, frames * pairs);
    const Tensor peak = scratch<Real>(logits, rows), log_inverse_sum = scratch<Real>(logits, rows);
    const SliceBuffers<Real> memory{data<Real>(gathered),
                                    data<Real>(peak),
                                    data<Real>(log_inverse_sum),
                                    data<Word>(moves),
                                    data<ScorePair<double>>(states),
                                    data<int32_t>(path)};
    launch_align<Storage, Real>(TncView<const Storage>(logits.const_data_ptr(), logits), *batch, normalize,
                                slice, memory, result.view<Real>(), device.stream());
  });
  return result.tuple();
}

}  // namespace
}  // namespace crnn::align

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CRNN_DISPATCH_KEY, m) {
  m.impl("align", TORCH_BOX(&crnn::align::align_cuda));
}
