// The CTC lattice: the states of a target, the transitions between them, and the states reachable at a frame.
//
// A target of S labels has 2S + 1 states: blank 0, label 0, blank 1, label 1, ..., label S-1, blank S. A path
// starts in one of the first two states and ends in one of the last two. At each frame it stays, moves to the
// next state, or moves from a label directly to the next label if the two differ. Written once for host and
// device.
#pragma once

#include "common/extended_range.h"

namespace crnn {

// Whether a path may go from a label directly to the next one.
CRNN_INLINE bool may_skip_blank(int32_t label, int32_t next_label) {
  return label != next_label;
}

// The minimum number of frames in which a path can emit the labels: one per label, plus one blank between
// equal neighbors. labels: (target_length)
CRNN_INLINE int64_t frames_needed(const int32_t* labels, int64_t target_length) {
  int64_t needed = target_length;
  for (int64_t i = 1; i < target_length; ++i) needed += !may_skip_blank(labels[i - 1], labels[i]);
  return needed;
}

// Labels [begin, end) that a path can reach by frame t of T and from which it can still reach the end. The
// reachable blanks are those next to these labels.
struct LabelRange {
  int64_t begin;
  int64_t end;
};

CRNN_INLINE LabelRange reachable_labels(int64_t t, int64_t frames, int64_t target_length) {
  return {maximum<int64_t>(0, target_length - frames + t), minimum<int64_t>(target_length, t + 1)};
}

}  // namespace crnn
