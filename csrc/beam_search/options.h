// The options of a search, for host and device.
#pragma once

#include <limits>

#include "beam_search/prefix.h"

namespace crnn::beam_search {

struct Options {
  int64_t beam;           // prefixes that are kept from frame to frame
  int64_t nbest;          // hypotheses that are returned
  int64_t blank;          // class
  bool normalize;         // logits, not log-probabilities
  int64_t most_tokens;    // of a frame, only so many may begin
  double token_min_logp;  // and only those with this ln p
  double beam_threshold;  // candidates further below the best one are dropped; nats
};

// Scores are compared in bits: binary logarithms of probabilities. Where nothing adds to them (kAdds false),
// order_of stands for the logarithm.

// The lowest score that beam_threshold lets live beside a best one.
template <bool kAdds>
CRNN_INLINE double lowest_beside(double best, const Options& options) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (options.beam_threshold == kInfinity || best == -kInfinity) return -kInfinity;
  const double bits = options.beam_threshold * kLog2E;
  // Rounded, it could come out above the best one.
  return kAdds ? best - bits : smaller(best, order_of_log2(log2_of_order(best) - bits));
}

// The least logit of a token by which a score can rise by `rise` bits, and that token_min_logp lets begin.
template <class Real>
CRNN_INLINE Real least_logit(double rise, Real peak, Real inverse_sum, const Options& options) {
  return Real(larger(rise * kLn2, options.token_min_logp) - ::log(double(inverse_sum)) + double(peak));
}

}  // namespace crnn::beam_search
