// Options of the search, for host and device.
#pragma once

#include <limits>

#include "beam_search/prefix.h"

namespace crnn::beam_search {

struct Options {
  int64_t beam_size;      // prefixes kept after each frame
  int64_t nbest;          // hypotheses returned
  int64_t blank;          // class
  bool normalize;         // inputs are logits, not log-probabilities
  int64_t token_top_k;    // extend prefixes only with this many tokens per frame
  double token_min_logp;  // and only with tokens of at least this log-probability; nats
  double beam_threshold;  // drop candidates this far below the best one; nats
};

// Scores are compared in bits (log2 of probabilities). Without fusion, approx_log2 replaces the logarithm.

// The lowest score that beam_threshold keeps, given the best one.
template <bool kHasFusion>
CRNN_INLINE double score_floor(double best, const Options& options) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (options.beam_threshold == kInfinity || best == -kInfinity) return -kInfinity;
  const double bits = options.beam_threshold * kLog2E;
  // The minimum, because rounding could lift the floor above the best score.
  return kHasFusion ? best - bits : minimum(best, to_approx_log2(from_approx_log2(best) - bits));
}

// The lowest logit of a token that changes a score by at least `log2_gain` bits and satisfies token_min_logp.
template <class Real>
CRNN_INLINE Real min_token_logit(double log2_gain, Real row_max, Real inverse_sum, const Options& options) {
  const double min_logp = maximum(log2_gain * kLn2, options.token_min_logp);
  return Real(min_logp - ::log(double(inverse_sum)) + double(row_max));
}

}  // namespace crnn::beam_search
