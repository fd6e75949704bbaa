// The targets and lengths of a batch: checks of their tensors, and their values on the CPU.
//
// In a header, because each backend is a separate library.
#pragma once

#include <string>
#include <vector>

#include "common/arguments.h"
#include "targets/batch_shape.h"

namespace crnn {

// longest_target: the number of labels of the longest target, or -1 if the caller does not know it.
inline BatchShape make_batch_shape(int64_t frames, int64_t samples, int64_t classes, const Tensor& targets,
                                   const Tensor& target_lengths, int64_t longest_target = -1) {
  const bool padded = targets.dim() == 2;
  const int64_t texts_per_sample = samples == 0 ? 1 : target_lengths.size(0) / samples;
  return {frames, samples,         classes,          padded ? targets.size(1) : 0,
          padded, targets.numel(), texts_per_sample, longest_target < 0 ? INT64_MAX : longest_target};
}

// Checks shapes, dtypes and devices. Values of lengths and targets are not read: they may live on a GPU.
//
// logits: (T, N, C); targets: (N * K, S) or concatenated; input_lengths: (N); target_lengths: (N * K)
inline BatchShape check_batch(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                              const Tensor& target_lengths, int64_t blank, int64_t longest_target,
                              const char* op) {
  check_logits(logits, blank, op);
  check_lengths(input_lengths, logits, op, "input_lengths");
  check_indices(target_lengths, logits, op, "target_lengths");
  const int64_t samples = logits.size(1);
  check(target_lengths.dim() == 1, op, "target_lengths must have one dimension, got ", target_lengths.dim());
  const int64_t texts = target_lengths.size(0);
  check(samples == 0 ? texts == 0 : texts % samples == 0, op,
        "the number of target_lengths must be a multiple of N=", samples, ", got ", texts);
  check_indices(targets, logits, op, "targets");
  check(targets.dim() == 1 || targets.dim() == 2, op, "targets must be (N, S) or concatenated, got ",
        targets.dim(), " dimensions");
  check(targets.dim() == 1 || targets.size(0) == texts, op,
        "targets must have one row per element of target_lengths (", texts, "), got ", targets.size(0));
  check(longest_target >= -1, op, "longest_target must be at least -1, got ", longest_target);
  return make_batch_shape(logits.size(0), samples, logits.size(2), targets, target_lengths, longest_target);
}

struct Batch {
  std::vector<int32_t> labels;          // in the layout of targets, including the padding of padded targets
  std::vector<int64_t> target_offsets;  // (N * K): indices into labels
  std::vector<int64_t> length;          // (N * K)
  std::vector<int64_t> frames;          // (N)
  std::vector<char> valid;              // (N * K): 0 if a length or a label is invalid

  bool has_frame(int64_t t, int64_t n) const { return t < frames[n]; }
};

// The name of an element in messages: the length of text m, or its label i if i >= 0.
inline std::string element_name(const BatchShape& shape, const char* name, int64_t m, int64_t i = -1) {
  std::ostringstream text;
  text << name << "[" << m / shape.texts_per_sample;
  if (shape.texts_per_sample > 1) text << ", " << m % shape.texts_per_sample;
  if (i >= 0) text << ", " << i;
  text << "]";
  return text.str();
}

// Reads lengths and labels. With `validate`, an invalid value is an error. Otherwise it makes its text
// invalid: no label of that text is used, and an invalid input length counts as T.
inline Batch read_batch(const BatchShape& shape, const Tensor& targets, const Tensor& input_lengths,
                        const Tensor& target_lengths, int64_t blank, bool validate, const char* op) {
  Batch batch;
  batch.labels.resize(shape.labels);
  batch.target_offsets.resize(shape.texts());
  batch.length.resize(shape.texts());
  batch.frames.resize(shape.samples);
  batch.valid.resize(shape.texts());
  const IndexView target(targets), input_length(input_lengths), target_length(target_lengths);

  if (validate) check_input_lengths(input_lengths, shape.frames, op);
  int64_t next_label = 0;
  bool offset_unknown = false;
  for (int64_t m = 0; m < shape.texts(); ++m) {
    const int64_t n = m / shape.texts_per_sample;
    const int64_t frames = input_length(n), length = target_length(m);
    const int64_t first = shape.padded ? m * shape.padded_length : next_label;
    const int64_t available = shape.padded ? shape.padded_length : shape.labels - first;
    const bool frames_fit = is_valid_length(frames, shape.frames);
    const bool length_fits = is_valid_length(length, available);
    if (validate && !length_fits) {
      const std::string element = element_name(shape, "target_lengths", m);
      check(length >= 0, op, element, " is ", length, ", but a length cannot be negative");
      check(!shape.padded, op, element, " is ", length, ", but targets has S=", shape.padded_length,
            " columns");
      fail(op, element, " is ", length, ", but concatenated targets has only ", available, " labels left of ",
           shape.labels);
    }
    const bool is_too_long = length > shape.longest_target;
    if (validate && is_too_long)
      fail(op, element_name(shape, "target_lengths", m), " is ", length, ", but longest_target is ",
           shape.longest_target);
    // After an invalid length, the offsets of the following texts are unknown.
    offset_unknown |= !shape.padded && !length_fits;
    bool valid = frames_fit && length_fits && !is_too_long && !offset_unknown;
    next_label = first + (length_fits ? length : 0);
    for (int64_t i = 0; valid && i < length; ++i) {
      const int64_t label = shape.padded ? target(m, i) : target(first + i);
      const bool label_fits = is_valid_label(label, shape.classes, blank);
      if (validate && !label_fits) {
        const std::string element = shape.padded ? element_name(shape, "targets", m, i)
                                                 : "targets[" + std::to_string(first + i) + "]";
        check(label != blank, op, element, " is ", label, ", which is the blank");
        fail(op, element, " is ", label, ", but logits has C=", shape.classes, " classes");
      }
      valid = label_fits;
      batch.labels[first + i] = int32_t(label);
    }
    batch.target_offsets[m] = first;
    batch.length[m] = valid ? length : 0;
    batch.frames[n] = frames_fit ? frames : shape.frames;
    batch.valid[m] = valid;
  }
  check(!validate || shape.padded || next_label == shape.labels, op, "target_lengths adds up to ", next_label,
        ", but concatenated targets has ", shape.labels, " labels");
  return batch;
}

}  // namespace crnn
