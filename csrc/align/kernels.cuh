// The kernels of align in their order: [first_label], then for each slice logits  path. What is launched
// depends on the BatchShape alone, so that nothing waits for the host.
#pragma once

#include "align/logits.cuh"
#include "align/path.cuh"
#include "targets/first_label.cuh"
#include "targets/slices.h"

namespace crnn::align {

// Elements of the scratch memory, see Memory.
inline int64_t pair_elements(const BatchShape& shape) {
  return shape.labels + shape.texts();
}
inline int64_t state_elements(const BatchShape& shape) {
  return shape.most_labels() + 1 > kFourWarps ? 2 * pair_elements(shape) : 0;
}

template <class Real>
int64_t scratch_bytes(const BatchShape& shape) {
  const int64_t rows = shape.frames * shape.samples, pairs = pair_elements(shape);
  return int64_t(sizeof(Real)) * (shape.frames * pairs + 2 * rows) +
         int64_t(sizeof(Word)) * words_for(shape.frames) * pairs +
         int64_t(sizeof(Pair<double>)) * state_elements(shape) +
         int64_t(sizeof(int32_t)) * shape.frames * shape.texts();
}

// logits: (T, N, C); memory: for slices of that shape
template <class Storage, class Real>
void launch_align(const Rows<const Storage>& logits, const DeviceBatch& batch, bool normalize,
                  const BatchShape& slice_shape, const Memory<Real>& memory, const Aligned<Real>& aligned,
                  gpu::Stream stream) {
  for_each_slice(batch, slice_shape, [&](const Slice& slice) {
    const BatchShape& shape = slice.batch.shape;
    const Statistics statistics = slice.statistics(normalize);
    with_row_groups(shape.frames * shape.samples, shape.classes, [&](auto row_threads, int64_t blocks) {
      gpu::launch(logits_kernel<row_threads(), Storage, Real>, blocks, kRowBlock, 0, stream,
                  logits.from_sample(slice.first_sample), slice.batch, statistics, memory);
    });
    with_most_pairs<2 * gpu::kWarp, kFourWarps>(shape.most_labels() + 1, [&](auto most_pairs) {
      gpu::launch(path_kernel<most_pairs(), Real>, shape.texts(), threads_for(most_pairs()), 0, stream,
                  slice.batch, memory, aligned.from_text(slice.first_text));
    });
  });
}

}  // namespace crnn::align
