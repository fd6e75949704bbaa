// The forward pass on a GPU: allocates its memory and launches its kernels.
#include "forward_backward/forward.h"

#include "forward_backward/kernels.cuh"

namespace crnn::forward_backward {

// The recursion dominates the build time, so each type is compiled in its own file, recursion_float.cu and
// recursion_double.cu.
extern template void launch_recursion(const DeviceBatch&, const RecursionBuffers<float>&, const LossOptions&,
                                      float*, double*, gpu::Stream);
extern template void launch_recursion(const DeviceBatch&, const RecursionBuffers<double>&, const LossOptions&,
                                      double*, double*, gpu::Stream);

void run_forward(const Tensor& logits, const DeviceBatch& batch, bool normalize, const LossOptions& options,
                 const Tensor& losses, const Tensor& saved, gpu::Stream stream) {
  const BatchShape& shape = batch.shape;
  const bool reduced = options.reduction != Reduction::kNone;
  const Tensor terms = new_tensor(logits, {reduced ? shape.texts() : 0}, ScalarType::Double);
  dispatch_floating(logits.scalar_type(), stream.op, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    using State = PackedExtended<Real>;
    const bool with_grad = options.with_grad;
    // With a gradient, the scratch memory is a small multiple of what is saved, and slices would leave
    // processors idle.
    const BatchShape slice = with_grad ? shape : choose_slice_shape(shape, scratch_bytes<Real>);
    const Tensor emissions = scratch<State>(logits, emission_elements(slice));
    const Tensor stored = scratch<State>(logits, stored_elements(slice, with_grad));
    const Tensor states = scratch<State>(logits, state_elements(slice));
    const Tensor statistics = with_grad ? saved : scratch<Real>(logits, 2 * slice.frames * slice.texts());
    const RecursionBuffers<Real> memory{data<State>(emissions), data<State>(stored), data<State>(states),
                                        Saved<Real>(data<Real>(statistics), slice)};
    launch_forward<Storage, Real>(TncView<const Storage>(logits.const_data_ptr(), logits), batch, normalize,
                                  slice, memory, options, data<Real>(losses), data<double>(terms), stream);
  });
}

}  // namespace crnn::forward_backward
