// The collapse rule of greedy decoding: from the best class of each frame to tokens with their spans and
// scores. Written once for host and device.
//
// What is known of consecutive frames is a Segment. Stretches are joined by an associative operation: a loop
// folds the frames one by one, a block of threads scans them.
#pragma once

#include <limits>

#include "common/lengths.h"

namespace crnn::greedy {

// Is a frame of class `current` the first of a token, `beside` being the class of the frame before it? And
// the last one, `beside` being that of the frame after it? Outside of the sample all is blank.
CRNN_INLINE bool is_token_boundary(int32_t current, int32_t beside, int32_t blank) {
  return current != blank && current != beside;
}

struct Segment {
  int64_t tokens;     // how many begin in it
  int64_t start;      // the frame at which the last of them begins
  double token_logp;  // summed over the frames from there on, or over all if none begins
  double path_logp;   // summed over all frames

  static CRNN_INLINE Segment empty() { return {0, 0, 0, 0}; }

  static CRNN_INLINE Segment of_frame(int64_t frame, bool begins_token, double logp) {
    return {begins_token, frame, logp, logp};
  }
};

CRNN_INLINE Segment merge(const Segment& earlier, const Segment& later) {
  const bool begins = later.tokens > 0;
  return {earlier.tokens + later.tokens, begins ? later.start : earlier.start,
          begins ? later.token_logp : earlier.token_logp + later.token_logp,
          earlier.path_logp + later.path_logp};
}

// The results, all contiguous.
template <class Real>
struct DecodedView {
  int64_t* tokens;   // (N, T)
  int64_t* lengths;  // (N,)
  Real* scores;      // (N,)
  int64_t* starts;   // (N, T)
  int64_t* ends;     // (N, T)
  Real* token_logp;  // (N, T)
  int64_t frames;    // T

  // `read` is the sample up to its frame end - 1, a frame of the token.
  CRNN_INLINE void write_token(int64_t n, int32_t token, const Segment& read, int64_t end) const {
    const int64_t at = n * frames + read.tokens - 1;
    tokens[at] = token;
    starts[at] = read.start;
    ends[at] = end;
    token_logp[at] = Real(read.token_logp / double(end - read.start));
  }

  // A position behind the sample's last token.
  CRNN_INLINE void write_padding(int64_t n, int64_t position) const {
    const int64_t at = n * frames + position;
    tokens[at] = starts[at] = ends[at] = -1;
    token_logp[at] = 0;
  }

  CRNN_INLINE void write_sample(int64_t n, const Segment& read, int64_t length) const {
    constexpr Real kNaN = std::numeric_limits<Real>::quiet_NaN();
    lengths[n] = read.tokens;
    scores[n] = is_valid_length(length, frames) ? Real(read.path_logp) : kNaN;
  }
};

}  // namespace crnn::greedy
