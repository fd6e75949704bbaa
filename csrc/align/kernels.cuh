// The kernels of align in their order: [first_label]  logits  path. What is launched depends on the
// BatchShape alone, so that nothing waits for the host.
#pragma once

#include "align/logits.cuh"
#include "align/path.cuh"
#include "targets/first_label.cuh"

namespace crnn::align {

// Elements of the scratch memory, see Memory.
inline int64_t pair_elements(const BatchShape& shape) {
  return shape.labels + shape.texts();
}
inline int64_t state_elements(const BatchShape& shape) {
  return shape.most_labels() + 1 > kFourWarps ? 2 * pair_elements(shape) : 0;
}

// logits: (T, N, C)
template <class Storage, class Real>
void launch_align(const Rows<const Storage>& logits, const DeviceBatch& batch, bool normalize,
                  const Memory<Real>& memory, const Aligned<Real>& aligned, gpu::Stream stream) {
  const BatchShape& shape = batch.shape;
  with_row_groups(shape.frames * shape.samples, shape.classes, [&](auto row_threads, int64_t blocks) {
    gpu::launch(logits_kernel<row_threads(), Storage, Real>, blocks, kRowBlock, 0, stream, logits, batch,
                normalize, memory);
  });
  with_most_pairs<2 * gpu::kWarp, kFourWarps>(shape.most_labels() + 1, [&](auto most_pairs) {
    gpu::launch(path_kernel<most_pairs(), Real>, shape.texts(), threads_for(most_pairs()), 0, stream, batch,
                memory, aligned);
  });
}

}  // namespace crnn::align
