// The shape of a batch of logits and texts, for host and device.
#pragma once

#include "common/simd.h"

namespace crnn {

// A text is a sequence of labels: a row of targets. Usually each sample has one text. If it has K, text m
// belongs to sample m / K, and all K texts share its logits.
struct BatchShape {
  int64_t frames;         // T
  int64_t samples;        // N
  int64_t classes;        // C
  int64_t padded_length;  // S of padded targets
  bool padded;     // true: targets is (N * K, S); false: targets is concatenated, (sum of target lengths,)
  int64_t labels;  // number of elements of targets
  int64_t texts_per_sample = 1;        // K
  int64_t longest_target = INT64_MAX;  // maximum number of labels of a text; a longer text is invalid

  CRNN_INLINE int64_t texts() const { return samples * texts_per_sample; }

  // Maximum number of labels of a text that can be aligned: it cannot have more labels than frames.
  CRNN_INLINE int64_t max_labels() const {
    return minimum(longest_target, minimum(padded ? padded_length : labels, frames));
  }
};

}  // namespace crnn
