// What every backend of ctc_loss shares: its arguments, checked once, and the layout of what the forward pass
// keeps.
#pragma once

#include "common/arguments.h"

namespace crnn::ctc_loss {

constexpr const char* kOp = "ctc_loss";

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

struct Shape {
  int64_t frames;      // T
  int64_t samples;     // N
  int64_t classes;     // C
  int64_t max_length;  // S of padded targets
  bool padded;         // targets (N, S); otherwise concatenated, (sum of target lengths)
  int64_t labels;      // elements of targets
};

// Shapes, dtypes, devices and options; not the values of lengths and targets, which may live on a GPU. In the
// header, because each backend is a library of its own.
inline Shape check_tensors(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                           const Tensor& target_lengths, int64_t blank, int64_t reduction) {
  check_logits(logits, blank, kOp);
  Shape shape{};
  shape.frames = logits.size(0);
  shape.samples = logits.size(1);
  shape.classes = logits.size(2);
  check(reduction >= 0 && reduction <= 2, kOp, "reduction must be 0, 1 or 2, and it is ", reduction);

  check_indices(targets, logits, kOp, "targets");
  check(targets.dim() == 1 || targets.dim() == 2, kOp, "targets must be (N, S) or concatenated, and it has ",
        targets.dim(), " dimensions");
  shape.padded = targets.dim() == 2;
  check(!shape.padded || targets.size(0) == shape.samples, kOp, "targets must have N=", shape.samples,
        " rows, and it has ", targets.size(0));
  shape.max_length = shape.padded ? targets.size(1) : 0;
  shape.labels = targets.numel();

  check_lengths(input_lengths, logits, kOp, "input_lengths");
  check_lengths(target_lengths, logits, kOp, "target_lengths");
  return shape;
}

// What the forward pass keeps for the backward pass, one tensor of the computing type:
//   peak (N, T), inverse_sum (N, T): the statistics of each row, see common/rows.h;
//   posterior: sample n's label occupancies (T_n, S_n) begin at frames * (its first label's index in
//   targets).
// A sample without a gradient has peak +inf, one whose gradient is NaN has peak NaN, in each of its live
// frames.
inline int64_t saved_elements(const Shape& shape) {
  return shape.frames * (2 * shape.samples + shape.labels);
}

template <class Real>
struct Saved {
  Real* peak;
  Real* inverse_sum;
  Real* posterior;

  Saved(void* data, const Shape& shape)
      : peak(static_cast<Real*>(data)),
        inverse_sum(peak + shape.frames * shape.samples),
        posterior(inverse_sum + shape.frames * shape.samples) {}
};

}  // namespace crnn::ctc_loss
