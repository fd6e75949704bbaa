// The most probable path of a text: the rule that chooses it, how the choices are remembered, and what is
// told of it. Written once for host and device.
//
// Recurrence, with x the logits of a frame, not normalized (that would add the same to all paths), and blank
// i standing before label i:
//   best'(blank i) = max(best(blank i), best(label i-1)) + x(blank)
//   best'(label i) = max(best(label i), best(blank i), [label i != label i-1] best(label i-1)) + x(label i)
// The sums are in double: there are only additions and comparisons, in one order, so that all devices choose
// the same path, and over any number of frames no rounding of float decides.
#pragma once

#include <limits>

#include "common/simd.h"

namespace crnn::align {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();

// Blank i of the target is state 2i, label i is state 2i + 1. A move is the number of states that the path
// went up on its way into a state: 0 stays, 1 steps, 2 skips a blank. Of equal sums the lower number wins.
constexpr int kStep = 1, kSkip = 2;

// A blank and the label behind it. The last pair has no label.
template <class Value>
struct ScorePair {
  Value blank, label;

  // Before the first frame a path stands on the blank from which both first states can be reached.
  static CRNN_INLINE ScorePair before_first_frame(int64_t i) {
    return {i == 0 ? 0 : kImpossible, kImpossible};
  }
};

// The moves of a pair in one frame, 2 bits each: the blank's and then the label's. A word holds those of
// several frames.
constexpr int kBitsPerMove = 2, kBitsPerFrame = 2 * kBitsPerMove;
template <class Word>
constexpr int kFramesPerWord = 8 * sizeof(Word) / kBitsPerFrame;

// Takes a pair to the next frame, whose logits these are, and returns its moves. For numbers and vectors.
// label_below: of the pair before it; may_skip: may a path come from there to the label without a blank?
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

// The move into a state of the pair at a frame. word: the one of its pair that holds the frame.
template <class Word>
CRNN_INLINE int move_at(int32_t state, int64_t frame, Word word) {
  const int shift = int(frame % kFramesPerWord<Word>) * kBitsPerFrame + state % 2 * kBitsPerMove;
  return int(word >> shift) & ((1 << kBitsPerMove) - 1);
}

// The state in which the path ends: the last blank or the label before it. From both a path may go on to the
// end, by a step and by a skip, so of equal sums the blank's wins. last_label: kImpossible if there is none.
CRNN_INLINE int32_t last_state(int64_t length, double last_blank, double last_label) {
  return int32_t(last_label > last_blank ? 2 * length - 1 : 2 * length);
}

// The frames of a label, one by one.
struct Span {
  int64_t start;
  int64_t peak = start;
  double highest = kImpossible;  // of the log-probabilities, that at `peak`
  double sum = 0;                // of them

  CRNN_INLINE void add(int64_t frame, double logp) {
    if (logp > highest) {
      highest = logp;
      peak = frame;
    }
    sum += logp;
  }
};

// The results for M texts, all contiguous.
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

  // Of text m and those behind it.
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

  // A frame behind the last live one.
  CRNN_INLINE void write_padding_frame(int64_t m, int64_t frame) const { write_token(m, frame, -1); }

  // A column behind the last label.
  CRNN_INLINE void write_padding(int64_t m, int64_t column) const {
    const int64_t at = m * columns + column;
    starts[at] = ends[at] = peaks[at] = -1;
    token_logp[at] = 0;
  }
};

}  // namespace crnn::align
