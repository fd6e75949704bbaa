// The posterior of blank, for host and device.
#pragma once

#include <limits>

#include "common/exp2.h"

namespace crnn::ctc_loss {

// What the labels leave of a frame. log_odds: the blank's logit above the row's row_max. A masked blank has
// no share; of one as unlikely as float16's lowest number leaves it, what rounding leaves is none either.
template <class Real>
CRNN_INLINE Real blank_posterior(Real labels_posterior, Real log_odds) {
  constexpr Real kMasked = kZeroExponent * kLn2, kUnlikely = -30000;
  constexpr Real kRounding = 1000 * std::numeric_limits<Real>::epsilon();
  const Real rest = 1 - labels_posterior;
  if (log_odds < kMasked) return 0;
  return rest < (log_odds < kUnlikely ? kRounding : Real(0)) ? Real(0) : rest;
}

}  // namespace crnn::ctc_loss
