// The emission of one class, for host and device.
#pragma once

#include "common/exp2.h"

namespace crnn {

// Log-probabilities that are taken as they are may be positive. Above this bound the exponents of a path
// could leave their integer, so such a number counts as +inf does.
CRNN_HOST_DEVICE constexpr double max_log_prob(int64_t frames) {
  return double(1 << 26) / double(frames);
}

// The emissions of a vector of logits: softmax as extended-range numbers.
template <class Reals>
CRNN_INLINE Extended<Reals> emission(Reals logits, Reals row_max, Reals inverse_sum) {
  using Doubles = Vector<double, kLanesOf<Reals> * sizeof(double)>;
  const Doubles above_peak = convert_lanes<Doubles>(logits) - convert_lanes<Doubles>(row_max);
  const Extended<Reals> term = exp2_extended<Reals>(above_peak * kLog2E);
  return {term.mantissa * inverse_sum, term.exponent};
}

}  // namespace crnn
