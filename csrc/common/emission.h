// The emission of a class: its softmax as an extended-range number. For host and device.
#pragma once

#include "common/exp2.h"

namespace crnn {

// Log-probabilities used as they are may be positive. Beyond this bound the exponent of a path could overflow
// its integer, so larger values are treated like +inf.
CRNN_HOST_DEVICE constexpr double max_log_prob(int64_t frames) {
  return double(1 << 26) / double(frames);
}

// The emissions of one logit or of a vector of logits.
template <class Reals>
CRNN_INLINE Extended<Reals> emission(Reals logits, Reals row_max, Reals inverse_sum) {
  using Doubles = Vector<double, kLanesOf<Reals> * sizeof(double)>;
  const Doubles above_peak = convert_lanes<Doubles>(logits) - convert_lanes<Doubles>(row_max);
  const Extended<Reals> term = exp2_extended<Reals>(above_peak * kLog2E);
  return {term.mantissa * inverse_sum, term.exponent};
}

}  // namespace crnn
