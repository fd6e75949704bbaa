// The shape of a batch of logits and texts; for host and device.
#pragma once

#include "common/simd.h"

namespace crnn {

// A text is a sequence of labels, a row of targets. Usually each sample has one. Where it has K of them, text
// number m belongs to sample m / K, so that they share its logits.
struct BatchShape {
  int64_t frames;                      // T
  int64_t samples;                     // N
  int64_t classes;                     // C
  int64_t padded_length;               // S of padded targets
  bool padded;                         // targets (N * K, S); otherwise concatenated, (sum of target lengths)
  int64_t labels;                      // elements of targets
  int64_t texts_per_sample = 1;        // K
  int64_t longest_target = INT64_MAX;  // no text has more labels: one that claims more is invalid

  CRNN_INLINE int64_t texts() const { return samples * texts_per_sample; }

  // Labels of the longest target that can have an alignment: none has more of them than frames.
  CRNN_INLINE int64_t max_labels() const {
    return minimum(longest_target, minimum(padded ? padded_length : labels, frames));
  }
};

}  // namespace crnn
