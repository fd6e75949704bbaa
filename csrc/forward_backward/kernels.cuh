// The kernels of the forward pass in order of launch. [...] is optional.
//
//   [target_offsets]  emissions and recursion of each slice  [reduction]
//
// The launches depend on the BatchShape alone, so nothing waits for the host.
#pragma once

#include "forward_backward/emissions.cuh"
#include "forward_backward/recursion.cuh"
#include "targets/slices.h"
#include "targets/target_offsets.cuh"

namespace crnn::forward_backward {

// Numbers of elements of the scratch memory, each of 2 * sizeof(Real) bytes.
inline int64_t emission_elements(const BatchShape& shape) {
  return shape.frames * (shape.labels + shape.texts());
}
inline int64_t stored_elements(const BatchShape& shape, bool with_grad) {
  return with_grad ? shape.frames * shape.labels : 0;
}
inline int64_t state_elements(const BatchShape& shape) {
  const bool needed = shape.max_labels() + 1 > kMaxPairsFourWarps;
  return needed ? kStatesPerPair * (shape.labels + shape.texts()) : 0;
}

// Scratch memory without a gradient.
template <class Real>
int64_t scratch_bytes(const BatchShape& shape) {
  const int64_t states = emission_elements(shape) + state_elements(shape);
  return states * int64_t(sizeof(PackedExtended<Real>)) +
         2 * shape.frames * shape.texts() * int64_t(sizeof(Real));
}

// logits: (T, N, C); memory: for one slice, or, with a gradient, for the whole batch; losses: (texts), or ()
// with a reduction; terms: (texts) with a reduction, scratch
template <class Storage, class Real>
void launch_forward(const TncView<const Storage>& logits, const DeviceBatch& batch, bool normalize,
                    const BatchShape& slice_shape, const RecursionBuffers<Real>& memory,
                    const LossOptions& options, Real* losses, double* terms, gpu::Stream stream) {
  const bool reduced = options.reduction != Reduction::kNone;
  Real* posterior = options.with_grad ? memory.saved.posterior : nullptr;
  for_each_slice(batch, slice_shape, [&](const Slice& slice) {
    const BatchShape& shape = slice.batch.shape;
    const StatisticsMode mode = slice.statistics_mode(normalize);
    dispatch_row_tile(shape.frames * shape.samples, shape.classes, [&](auto threads_per_row, int64_t blocks) {
      gpu::launch(emissions_kernel<threads_per_row(), Storage, Real>, blocks, kRowBlockSize, 0, stream,
                  logits.from_sample(slice.first_sample), slice.batch, mode, memory.saved.row_max,
                  memory.saved.inverse_sum, memory.emissions, posterior);
    });
    launch_recursion(slice.batch, memory, options, reduced ? losses : losses + slice.first_text,
                     reduced ? terms + slice.first_text : terms, stream);
  });
  if (!reduced) return;
  gpu::launch(reduction_kernel<Real>, 1, kReductionBlockSize, 0, stream, terms, batch.shape.texts(),
              options.reduction == Reduction::kMean, losses);
}

}  // namespace crnn::forward_backward
