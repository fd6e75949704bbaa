// The kernels of align in order of launch: [target_offsets], then logits and path for each slice. The
// launches depend on the BatchShape alone, so nothing waits for the host.
#pragma once

#include "align/logits.cuh"
#include "align/path.cuh"
#include "targets/slices.h"
#include "targets/target_offsets.cuh"

namespace crnn::align {

// Numbers of elements of the scratch memory, see SliceBuffers.
inline int64_t pair_elements(const BatchShape& shape) {
  return shape.labels + shape.texts();
}
inline int64_t state_elements(const BatchShape& shape) {
  return shape.max_labels() + 1 > kMaxPairsFourWarps ? 2 * pair_elements(shape) : 0;
}

template <class Real>
int64_t scratch_bytes(const BatchShape& shape) {
  const int64_t rows = shape.frames * shape.samples, pairs = pair_elements(shape);
  return int64_t(sizeof(Real)) * (shape.frames * pairs + 2 * rows) +
         int64_t(sizeof(Word)) * num_words(shape.frames) * pairs +
         int64_t(sizeof(ScorePair<double>)) * state_elements(shape) +
         int64_t(sizeof(int32_t)) * shape.frames * shape.texts();
}

// logits: (T, N, C); memory: for one slice
template <class Storage, class Real>
void launch_align(const TncView<const Storage>& logits, const DeviceBatch& batch, bool normalize,
                  const BatchShape& slice_shape, const SliceBuffers<Real>& memory,
                  const AlignmentView<Real>& aligned, gpu::Stream stream) {
  for_each_slice(batch, slice_shape, [&](const Slice& slice) {
    const BatchShape& shape = slice.batch.shape;
    const StatisticsMode mode = slice.statistics_mode(normalize);
    dispatch_row_tile(shape.frames * shape.samples, shape.classes, [&](auto threads_per_row, int64_t blocks) {
      gpu::launch(logits_kernel<threads_per_row(), Storage, Real>, blocks, kRowBlockSize, 0, stream,
                  logits.from_sample(slice.first_sample), slice.batch, mode, memory);
    });
    dispatch_max_pairs<2 * gpu::kWarpSize, kMaxPairsFourWarps>(shape.max_labels() + 1, [&](auto max_pairs) {
      gpu::launch(path_kernel<max_pairs(), Real>, shape.texts(), threads_for(max_pairs()), 0, stream,
                  slice.batch, memory, aligned.from_text(slice.first_text));
    });
  });
}

}  // namespace crnn::align
