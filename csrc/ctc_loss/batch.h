// The targets and lengths of a batch, read on the CPU.
#pragma once

#include <vector>

#include "common/lengths.h"
#include "ctc_loss/ctc_loss.h"

namespace crnn::ctc_loss {

struct Batch {
  std::vector<int32_t> labels;       // concatenated, as in targets (with the padding of padded ones)
  std::vector<int64_t> first_label;  // (N): index into labels
  std::vector<int64_t> length;       // (N)
  std::vector<int64_t> frames;       // (N)
  std::vector<char> valid;           // (N): 0 where a length or a label breaks the rules

  bool is_live(int64_t t, int64_t n) const { return t < frames[n]; }
};

// Reads lengths and labels. What breaks the rules is an error with `validate`; otherwise it makes that sample
// invalid: none of its labels is looked at, and all T frames count as live if their number is what is wrong.
// In the header, because each backend is a library of its own.
inline Batch read_batch(const Shape& shape, const Tensor& targets, const Tensor& input_lengths,
                        const Tensor& target_lengths, int64_t blank, bool validate) {
  Batch batch;
  batch.labels.resize(shape.labels);
  batch.first_label.resize(shape.samples);
  batch.length.resize(shape.samples);
  batch.frames.resize(shape.samples);
  batch.valid.resize(shape.samples);
  const IndexView target(targets), input_length(input_lengths), target_length(target_lengths);

  if (validate) check_input_lengths(input_lengths, shape.frames, kOp);
  int64_t next_label = 0;
  bool lost = false;
  for (int64_t n = 0; n < shape.samples; ++n) {
    const int64_t frames = input_length(n), length = target_length(n);
    const int64_t first = shape.padded ? n * shape.max_length : next_label;
    const int64_t available = shape.padded ? shape.max_length : shape.labels - first;
    const bool frames_fit = is_possible_length(frames, shape.frames);
    const bool length_fits = is_possible_length(length, available);
    if (validate) {
      check(length >= 0, kOp, "target_lengths[", n, "] is ", length, ", but a length cannot be negative");
      check(length_fits || !shape.padded, kOp, "target_lengths[", n, "] is ", length,
            ", but targets has S=", shape.max_length, " columns");
      check(length_fits, kOp, "target_lengths[", n, "] is ", length, ", but concatenated targets has only ",
            available, " labels left of ", shape.labels);
    }
    // Where the labels behind a wrong length begin, cannot be told.
    lost |= !shape.padded && !length_fits;
    bool valid = frames_fit && length_fits && !lost;
    next_label = first + (length_fits ? length : 0);
    for (int64_t i = 0; valid && i < length; ++i) {
      const int64_t label = shape.padded ? target(n, i) : target(first + i);
      const bool label_fits = is_label(label, shape.classes, blank);
      if (validate && !label_fits) {
        std::ostringstream element;
        shape.padded ? element << "targets[" << n << ", " << i << "]"
                     : element << "targets[" << first + i << "]";
        check(label != blank, kOp, element.str(), " is ", label, ", which is the blank");
        fail(kOp, element.str(), " is ", label, ", but logits has C=", shape.classes, " classes");
      }
      valid = label_fits;
      batch.labels[first + i] = int32_t(label);
    }
    batch.first_label[n] = first;
    batch.length[n] = valid ? length : 0;
    batch.frames[n] = frames_fit ? frames : shape.frames;
    batch.valid[n] = valid;
  }
  check(!validate || shape.padded || next_label == shape.labels, kOp, "target_lengths adds up to ",
        next_label, ", but concatenated targets has ", shape.labels, " labels");
  return batch;
}

}  // namespace crnn::ctc_loss
