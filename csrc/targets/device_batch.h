// The targets and lengths of a batch as kernels read them, from memory that nobody has checked.
#pragma once

#include "common/lengths.h"
#include "common/views.h"
#include "targets/batch_shape.h"

namespace crnn {

struct DeviceText {
  int64_t slice_index;    // its index among the texts of this batch or slice (slices.h): in scratch memory
  int64_t batch_index;    // its row of targets and of results, counted from the slice's first text
  int64_t frames;         // that are live: all of them, where that length breaks its rule
  int64_t length;         // its labels
  int64_t target_offset;  // index into the labels of all texts, laid out as in targets, by slots
  bool valid;             // false where a length breaks the rules: then none of its labels is looked at
};

// Handed to kernels by value. The rules are those of read_batch (batch.h), but for labels, which each kernel
// has to guard where it uses them.
struct DeviceBatch {
  BatchShape shape;
  int64_t blank;
  IndexView targets, input_lengths, target_lengths;
  // (N * K), of concatenated targets; above shape.labels where it cannot be told. See target_offsets.cuh.
  const int64_t* target_offsets;
  // Of the batch that this one is a slice of, if it is one.
  int64_t all_samples = shape.samples, all_texts_per_sample = shape.texts_per_sample;

  // Of sample n: all of them, where their number breaks its rule.
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
