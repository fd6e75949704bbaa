// What the loss is to be, the layout of what the forward pass keeps, and the weights of a reduction; for host
// and device.
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
  bool negated = false;  // log-probabilities, for Reduction::kNone
};

// What the forward pass keeps for the backward pass, one tensor of the computing type:
//   row_max (N, T), inverse_sum (N, T): the statistics of each row, see common/rows.h (on a GPU, where a
//   sample has several texts, which have no gradient, those of each text); posterior: sample n's label
//   posteriors (T_n, S_n) begin at frames * (its first label's index in targets).
// A sample without a gradient has row_max +inf, one whose gradient is NaN has row_max NaN, in each of its
// live frames.
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

// The row_max of a sample's live rows as the backward pass takes it. Lengths may have changed since the
// forward pass: those that it cannot have given a gradient to, because no path is shorter than its target,
// make it NaN, and nothing that was saved or prepared for them is read.
template <class Real>
CRNN_INLINE Real checked_row_max(Real row_max, bool valid, int64_t frames, int64_t length) {
  const bool has_gradient = row_max < std::numeric_limits<Real>::infinity();
  return has_gradient && !(valid && length <= frames) ? std::numeric_limits<Real>::quiet_NaN() : row_max;
}

// What the labels leave of a frame. log_odds: the blank's logit above the row's row_max. A masked blank has
// no factor; of one as unlikely as float16's lowest number leaves it, what rounding leaves is none either.
template <class Real>
CRNN_INLINE Real blank_posterior(Real labels_posterior, Real log_odds) {
  constexpr Real kMasked = kZeroExponent * kLn2, kUnlikely = -30000;
  constexpr Real kRounding = 1000 * std::numeric_limits<Real>::epsilon();
  const Real rest = 1 - labels_posterior;
  if (log_odds < kMasked) return 0;
  return rest < (log_odds < kUnlikely ? kRounding : Real(0)) ? Real(0) : rest;
}

// The weight in the result of the loss of one of so many samples.
CRNN_INLINE double reduction_weight(int64_t samples, int64_t target_length, Reduction reduction) {
  if (reduction != Reduction::kMean) return 1;
  return 1 / (double(maximum<int64_t>(target_length, 1)) * double(samples));
}

}  // namespace crnn::forward_backward
