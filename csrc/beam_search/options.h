// The options of a search, for host and device.
#pragma once

#include <limits>

#include "beam_search/prefix.h"

namespace crnn::beam_search {

struct Options {
  int64_t beam_size;      // prefixes that are kept from frame to frame
  int64_t nbest;          // hypotheses that are returned
  int64_t blank;          // class
  bool normalize;         // logits, not log-probabilities
  int64_t token_top_k;    // of a frame, only so many may begin
  double token_min_logp;  // and only those with this ln p
  double beam_threshold;  // candidates further below the best one are dropped; nats
};

// Scores are compared in bits: binary logarithms of probabilities. Where nothing adds to them (kHasFusion
// false), approx_log2 stands for the logarithm.

// The lowest score that beam_threshold lets live beside a best one.
template <bool kHasFusion>
CRNN_INLINE double score_floor(double best, const Options& options) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (options.beam_threshold == kInfinity || best == -kInfinity) return -kInfinity;
  const double bits = options.beam_threshold * kLog2E;
  // Rounded, it could come out above the best one.
  return kHasFusion ? best - bits : minimum(best, to_approx_log2(from_approx_log2(best) - bits));
}

// The least logit of a token by which a score can rise by `rise` bits, and that token_min_logp lets begin.
template <class Real>
CRNN_INLINE Real min_token_logit(double rise, Real row_max, Real inverse_sum, const Options& options) {
  return Real(maximum(rise * kLn2, options.token_min_logp) - ::log(double(inverse_sum)) + double(row_max));
}

}  // namespace crnn::beam_search
