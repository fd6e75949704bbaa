// The collapse rule of greedy decoding: turns the best class of each frame into tokens with spans and scores.
// Written once for host and device.
//
// A Segment summarizes consecutive frames. An associative operation merges segments, so a loop can reduce the
// frames one by one and a block of threads can scan them.
#pragma once

#include <limits>

#include "common/lengths.h"

namespace crnn::greedy {

// Whether a frame of class `current` is the first of its token, given the class `beside` of the previous
// frame; or the last of its token, given the class of the next frame. Frames outside of the sample count as
// blank.
CRNN_INLINE bool is_token_boundary(int32_t current, int32_t beside, int32_t blank) {
  return current != blank && current != beside;
}

struct Segment {
  int64_t tokens;     // number of tokens that begin in the segment
  int64_t start;      // frame at which the last of them begins
  double token_logp;  // sum over the frames from there on, or over all frames if no token begins
  double path_logp;   // sum over all frames

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

// Pointers to the results, all contiguous.
template <class Real>
struct DecodedView {
  int64_t* tokens;   // (N, T)
  int64_t* lengths;  // (N,)
  Real* scores;      // (N,)
  int64_t* starts;   // (N, T)
  int64_t* ends;     // (N, T)
  Real* token_logp;  // (N, T)
  int64_t frames;    // T

  // `prefix`: the segment from the first frame of the sample to frame end - 1, the last frame of the token so
  // far.
  CRNN_INLINE void write_token(int64_t n, int32_t token, const Segment& prefix, int64_t end) const {
    const int64_t at = n * frames + prefix.tokens - 1;
    tokens[at] = token;
    starts[at] = prefix.start;
    ends[at] = end;
    token_logp[at] = Real(prefix.token_logp / double(end - prefix.start));
  }

  // Fills a position after the last token.
  CRNN_INLINE void write_padding(int64_t n, int64_t position) const {
    const int64_t at = n * frames + position;
    tokens[at] = starts[at] = ends[at] = -1;
    token_logp[at] = 0;
  }

  CRNN_INLINE void write_sample(int64_t n, const Segment& prefix, int64_t length) const {
    constexpr Real kNaN = std::numeric_limits<Real>::quiet_NaN();
    lengths[n] = prefix.tokens;
    scores[n] = is_valid_length(length, frames) ? Real(prefix.path_logp) : kNaN;
  }
};

}  // namespace crnn::greedy
