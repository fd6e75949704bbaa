// The kernels of the backward pass in order of launch. [...] is optional. For the forward pass see
// forward_backward/kernels.cuh.
//
//   [target_offsets]  prepare_gradient  gradient
//
// The launches depend on the BatchShape alone, so nothing waits for the host.
#pragma once

#include "ctc_loss/gradient.cuh"

namespace crnn::ctc_loss {

// logits, gradient: (T, N, C); grad_loss: (N), or () with stride 0; scales: (N), scratch; occurrences:
// (labels), scratch
template <class Storage, class Real>
void launch_ctc_loss_backward(const TncView<const Storage>& logits, const TncView<Storage>& gradient,
                              const DeviceBatch& batch, bool normalize, Reduction reduction,
                              const Real* grad_loss, int64_t grad_stride, const Saved<const Real>& saved,
                              Real* scales, Occurrence* occurrences, gpu::Stream stream) {
  const BatchShape& shape = batch.shape;
  const int64_t blocks_per_sample =
      maximum<int64_t>(1, (batch.shape.max_labels() + kLabelsPerBlock - 1) / kLabelsPerBlock);
  gpu::launch(prepare_gradient_kernel<Real>, shape.samples * blocks_per_sample, kPrepareBlockSize, 0, stream,
              batch, blocks_per_sample, reduction, grad_loss, grad_stride, scales, occurrences);
  dispatch_row_tile(shape.frames * shape.samples, shape.classes, [&](auto threads_per_row, int64_t blocks) {
    gpu::launch(gradient_kernel<threads_per_row(), Storage, Real>, blocks, kRowBlockSize, 0, stream, logits,
                gradient, batch, normalize, saved, scales, occurrences);
  });
}

}  // namespace crnn::ctc_loss
