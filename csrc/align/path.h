// The most probable path of a text: the recurrence, the moves that record its choices, and the results.
// Written once for host and device.
//
// x is the logits of a frame; normalizing them would add the same amount to all paths. Blank i precedes label
// i:
//   best'(blank i) = max(best(blank i), best(label i-1)) + x(blank)
//   best'(label i) = max(best(label i), best(blank i), [label i != label i-1] best(label i-1)) + x(label i)
// The sums are double and use only additions and comparisons in a fixed order. All devices therefore choose
// the same path, and float rounding never decides, whatever the number of frames.
#pragma once

#include <limits>

#include "common/simd.h"

namespace crnn::align {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();

// Blank i of the target is state 2i, and label i is state 2i + 1. A move is the number of states by which the
// path advances when it enters a state: 0 stays, 1 steps, 2 skips a blank. Ties go to the lower number.
constexpr int kStep = 1, kSkip = 2;

// A blank and the label after it. The last pair has no label.
template <class Value>
struct ScorePair {
  Value blank, label;

  // Before the first frame, a path is in the blank from which both first states can be reached.
  static CRNN_INLINE ScorePair before_first_frame(int64_t i) {
    return {i == 0 ? 0 : kImpossible, kImpossible};
  }
};

// The moves of a pair at one frame, 2 bits each: blank, then label. A word holds the moves of several frames.
constexpr int kBitsPerMove = 2, kBitsPerFrame = 2 * kBitsPerMove;
template <class Word>
constexpr int kFramesPerWord = 8 * sizeof(Word) / kBitsPerFrame;

// Advances a pair by one frame with the given logits and returns its moves. For scalars and vectors.
// label_below: the label of the previous pair; may_skip: whether a path may go from there directly to this
// label.
template <class Moves, class Value, class Mask>
CRNN_INLINE Moves advance(ScorePair<Value>& pair, Value label_below, Mask may_skip, Value blank_logit,
                          Value label_logit) {
  const auto moves = [](int of_blank, int of_label)
                         CRNN_INLINE_LAMBDA { return broadcast<Moves>(of_blank | of_label << kBitsPerMove); };
  const Value from_skip = may_skip ? label_below : broadcast<Value>(kImpossible);
  const auto blank_steps = label_below > pair.blank;
  const auto label_steps = pair.blank > pair.label;
  const Value without_skip = label_steps ? pair.blank : pair.label;
  const auto label_skips = from_skip > without_skip;
  pair = {(blank_steps ? label_below : pair.blank) + blank_logit,
          (label_skips ? from_skip : without_skip) + label_logit};
  const Moves of_label = label_skips ? moves(0, kSkip) : label_steps ? moves(0, kStep) : moves(0, 0);
  return of_label | (blank_steps ? moves(kStep, 0) : moves(0, 0));
}

// The move into a state at a frame. word: the word of the state's pair that holds the frame.
template <class Word>
CRNN_INLINE int move_at(int32_t state, int64_t frame, Word word) {
  const int shift = int(frame % kFramesPerWord<Word>) * kBitsPerFrame + state % 2 * kBitsPerMove;
  return int(word >> shift) & ((1 << kBitsPerMove) - 1);
}

// The last state of the path: the last blank, or the label before it. From both, a path could continue, by a
// step or by a skip, so on a tie the blank wins. last_label: kImpossible for a text without labels.
CRNN_INLINE int32_t last_state(int64_t length, double last_blank, double last_label) {
  return int32_t(last_label > last_blank ? 2 * length - 1 : 2 * length);
}

// Accumulates the frames of a label.
struct Span {
  int64_t start;
  int64_t peak = start;
  double highest = kImpossible;  // largest log-probability, reached at `peak`
  double sum = 0;                // sum of the log-probabilities

  CRNN_INLINE void add(int64_t frame, double logp) {
    if (logp > highest) {
      highest = logp;
      peak = frame;
    }
    sum += logp;
  }
};

// Pointers to the results of M texts, all contiguous.
template <class Real>
struct AlignmentView {
  int64_t* tokens;   // (M, T)
  Real* scores;      // (M,)
  int64_t* starts;   // (M, S)
  int64_t* ends;     // (M, S)
  int64_t* peaks;    // (M, S)
  Real* token_logp;  // (M, S)
  int64_t frames;    // T
  int64_t columns;   // S

  CRNN_INLINE void write_token(int64_t m, int64_t frame, int64_t token) const {
    tokens[m * frames + frame] = token;
  }

  CRNN_INLINE void write_span(int64_t m, int64_t label, const Span& span, int64_t end) const {
    const int64_t at = m * columns + label;
    starts[at] = span.start;
    ends[at] = end;
    peaks[at] = span.peak;
    token_logp[at] = Real(span.sum / double(end - span.start));
  }

  // The results of text m and the following texts.
  AlignmentView from_text(int64_t m) const {
    AlignmentView rest = *this;
    rest.tokens += m * frames;
    rest.scores += m;
    rest.starts += m * columns;
    rest.ends += m * columns;
    rest.peaks += m * columns;
    rest.token_logp += m * columns;
    return rest;
  }

  // Fills a frame after the end of the sample.
  CRNN_INLINE void write_padding_frame(int64_t m, int64_t frame) const { write_token(m, frame, -1); }

  // Fills a column after the last label.
  CRNN_INLINE void write_padding(int64_t m, int64_t column) const {
    const int64_t at = m * columns + column;
    starts[at] = ends[at] = peaks[at] = -1;
    token_logp[at] = 0;
  }
};

}  // namespace crnn::align
