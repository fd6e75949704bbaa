// The options of a search, for host and device.
#pragma once

#include "common/simd.h"

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

}  // namespace crnn::beam_search
