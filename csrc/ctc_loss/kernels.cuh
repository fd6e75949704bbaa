// The kernels of ctc_loss in their order.
//
//   forward    [first_label]  emissions  recursion  [reduction]
//   backward   [first_label]  prepare_gradient  gradient
//
// What is launched depends on shapes alone, so that nothing waits for the host.
#pragma once

#include "ctc_loss/first_label.cuh"
#include "ctc_loss/gradient.cuh"
#include "ctc_loss/recursion.cuh"

namespace crnn::ctc_loss {

// Elements of the scratch memory of a forward pass, each of 2 * sizeof(Real) bytes.
inline int64_t emission_elements(const Shape& shape) {
  return shape.frames * (shape.labels + shape.samples);
}
inline int64_t stored_elements(const Shape& shape, bool with_grad) {
  return with_grad ? shape.frames * shape.labels : 0;
}
inline int64_t state_elements(const DeviceBatch& batch) {
  constexpr int64_t kMostPairs = 4 * kBigBlock / 2;
  const bool needed = batch.most_labels() + 1 > kMostPairs;
  return needed ? kStatesPerPair * (batch.shape.labels + batch.shape.samples) : 0;
}

// Fills batch.first_label, if targets are concatenated. first_label: (N)
inline void launch_first_label(const DeviceBatch& batch, int64_t* first_label, gpu::Stream stream) {
  if (batch.shape.padded) return;
  gpu::launch(first_label_kernel, 1, kScanBlock, 0, stream, batch.target_lengths, batch.shape.samples,
              batch.shape.labels, first_label);
}

// logits: (T, N, C); emissions: scratch, see emission_elements; loss: () unless reduction is kNone
template <class Storage, class Real>
void launch_ctc_loss(const Rows<const Storage>& logits, const DeviceBatch& batch, bool normalize,
                     StoredState<Real>* emissions, const RecursionMemory<Real>& memory,
                     const LossOutput<Real>& output, Real* loss, bool with_grad, gpu::Stream stream) {
  const Shape& shape = batch.shape;
  with_row_groups(shape.frames * shape.samples, shape.classes, [&](auto row_threads, int64_t blocks) {
    gpu::launch(emissions_kernel<row_threads(), Storage, Real>, blocks, kRowBlock, 0, stream, logits, batch,
                normalize, memory.saved.peak, memory.saved.inverse_sum, emissions);
  });
  const bool small = batch.most_labels() + 1 <= 4 * kSmallBlock / 2;
  const auto kernel = small ? recursion_kernel<kSmallBlock, Real> : recursion_kernel<kBigBlock, Real>;
  gpu::launch(kernel, shape.samples, small ? kSmallBlock : kBigBlock, 0, stream, batch, memory, output,
              with_grad);
  if (output.reduction == Reduction::kNone) return;
  gpu::launch(reduction_kernel<Real>, 1, kReductionBlock, 0, stream, output.terms, shape.samples,
              output.reduction == Reduction::kMean, loss);
}

// logits, gradient: (T, N, C); grad_loss: (N), or () with stride 0; scales: (N), scratch; occurrences:
// (labels), scratch
template <class Storage, class Real>
void launch_ctc_loss_backward(const Rows<const Storage>& logits, const Rows<Storage>& gradient,
                              const DeviceBatch& batch, bool normalize, Reduction reduction,
                              const Real* grad_loss, int64_t grad_stride, const Saved<const Real>& saved,
                              Real* scales, Occurrence* occurrences, gpu::Stream stream) {
  const Shape& shape = batch.shape;
  const int64_t blocks_per_sample =
      larger<int64_t>(1, (batch.most_labels() + kLabelsPerBlock - 1) / kLabelsPerBlock);
  gpu::launch(prepare_gradient_kernel<Real>, shape.samples * blocks_per_sample, kPrepareBlock, 0, stream,
              batch, blocks_per_sample, reduction, grad_loss, grad_stride, scales, occurrences);
  with_row_groups(shape.frames * shape.samples, shape.classes, [&](auto row_threads, int64_t blocks) {
    gpu::launch(gradient_kernel<row_threads(), Storage, Real>, blocks, kRowBlock, 0, stream, logits, gradient,
                batch, normalize, saved, scales, occurrences);
  });
}

}  // namespace crnn::ctc_loss
