// The targets and lengths of a batch as kernels read them. The values are unchecked.
#pragma once

#include "common/lengths.h"
#include "common/views.h"
#include "targets/batch_shape.h"

namespace crnn {

struct DeviceText {
  int64_t slice_index;    // index among the texts of the batch or slice (slices.h); indexes scratch memory
  int64_t batch_index;    // row of targets and of the results, relative to the first text of the slice
  int64_t frames;         // input length; T if the input length is invalid
  int64_t length;         // number of labels
  int64_t target_offset;  // offset into the labels of all texts in the layout of targets, by slice_index
  bool valid;             // false if a length is invalid; then no label of the text is used
};

// Passed to kernels by value. Lengths follow the rules of read_batch (batch.h). Labels are not checked:
// kernels must guard each use.
struct DeviceBatch {
  BatchShape shape;
  int64_t blank;
  IndexView targets, input_lengths, target_lengths;
  // (N * K), only for concatenated targets; > shape.labels if unknown. See target_offsets.cuh.
  const int64_t* target_offsets;
  // If this batch is a slice: the dimensions of the whole batch.
  int64_t all_samples = shape.samples, all_texts_per_sample = shape.texts_per_sample;

  // The input length of sample n; T if it is invalid.
  CRNN_INLINE int64_t input_frames(int64_t n) const {
    const int64_t frames = input_lengths(n);
    return is_valid_length(frames, shape.frames) ? frames : shape.frames;
  }

  // Text k of sample n.
  CRNN_INLINE DeviceText text(int64_t n, int64_t k = 0) const {
    const int64_t slice_index = n * shape.texts_per_sample + k, batch_index = n * all_texts_per_sample + k;
    const int64_t frames = input_lengths(n), length = target_lengths(batch_index);
    const int64_t first = shape.padded ? slice_index * shape.padded_length : target_offsets[slice_index];
    const int64_t available = shape.padded ? shape.padded_length : shape.labels - first;
    const bool frames_fit = is_valid_length(frames, shape.frames);
    const bool valid = frames_fit && is_valid_length(length, minimum(available, shape.longest_target));
    return {slice_index,        batch_index,       frames_fit ? frames : shape.frames,
            valid ? length : 0, valid ? first : 0, valid};
  }

  CRNN_INLINE int64_t label(const DeviceText& text, int64_t i) const {
    return shape.padded ? targets(text.batch_index, i) : targets(text.target_offset + i);
  }
};

}  // namespace crnn
