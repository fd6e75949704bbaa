// Options of the loss, the tensor saved for the backward pass, and what both backends derive from it. For
// host and device.
#pragma once

#include <limits>

#include "common/exp2.h"
#include "targets/batch_shape.h"

namespace crnn::forward_backward {

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

struct LossOptions {
  Reduction reduction;
  bool zero_infinity;
  bool with_grad;
  bool negated = false;  // return log-probabilities; only for Reduction::kNone
};

// The forward pass saves one tensor of the compute type for the backward pass:
//
//   row_max (N, T), inverse_sum (N, T)  the statistics of each row (row_statistics.h)
//   posterior                           the label posteriors (T_n, S_n) of sample n start at
//                                       frames * (offset of its labels in targets)
//
// For a sample without a gradient, row_max is +inf in each frame within input_lengths; for one with a NaN
// gradient, it is NaN. On a GPU, samples may have several texts, without a gradient; the statistics are then
// those of each text.
inline int64_t saved_elements(const BatchShape& shape) {
  return shape.frames * (2 * shape.samples + shape.labels);
}

template <class Real>
struct Saved {
  Real* row_max;
  Real* inverse_sum;
  Real* posterior;

  CRNN_INLINE Saved(Real* data, const BatchShape& shape)
      : row_max(data),
        inverse_sum(row_max + shape.frames * shape.texts()),
        posterior(inverse_sum + shape.frames * shape.texts()) {}
};

// The row_max that the backward pass uses for a sample's rows. Lengths may have changed since the forward
// pass. If the forward pass cannot have computed a gradient for them, because a path has at least as many
// frames as labels, returns NaN; then nothing that was saved or prepared for the sample is read.
template <class Real>
CRNN_INLINE Real checked_row_max(Real row_max, bool valid, int64_t frames, int64_t length) {
  const bool has_gradient = row_max < std::numeric_limits<Real>::infinity();
  return has_gradient && !(valid && length <= frames) ? std::numeric_limits<Real>::quiet_NaN() : row_max;
}

// The posterior of blank: 1 minus those of the labels. log_odds: the logit of blank minus row_max. A masked
// blank has posterior 0. If blank is about as unlikely as float16's lowest number makes it, a rest within
// rounding error also counts as 0.
template <class Real>
CRNN_INLINE Real blank_posterior(Real labels_posterior, Real log_odds) {
  constexpr Real kMasked = kZeroExponent * kLn2, kUnlikely = -30000;
  constexpr Real kRounding = 1000 * std::numeric_limits<Real>::epsilon();
  const Real rest = 1 - labels_posterior;
  if (log_odds < kMasked) return 0;
  return rest < (log_odds < kUnlikely ? kRounding : Real(0)) ? Real(0) : rest;
}

// The weight of one sample's loss in the reduced loss.
CRNN_INLINE double reduction_weight(int64_t samples, int64_t target_length, Reduction reduction) {
  if (reduction != Reduction::kMean) return 1;
  return 1 / (double(maximum<int64_t>(target_length, 1)) * double(samples));
}

}  // namespace crnn::forward_backward
