// The most probable path of one text on the host. See path.h for the recurrence.
#pragma once

#include <algorithm>

#include "align/path.h"
#include "common/buffer.h"
#include "common/rows.h"
#include "targets/lattice.h"

namespace crnn::align {

// One text as the recursion sees it. Rows are padded to whole vectors.
template <class Real>
struct Text {
  int64_t frames, length;
  const int32_t* labels;  // (S)
  int64_t pitch;          // row length, at least S + 1
  Real* label_logits;     // (T, pitch), -inf after the labels
  Real* blank_logits;     // (T)
};

// Scratch memory of one thread, for one text at a time. It grows to the largest text so far.
template <class Real>
class ViterbiWorkspace {
 public:
  using Word = int64_t;  // same width as the sums, so that vectors of both have the same lanes

  // Returns the text with uninitialized logits.
  Text<Real> prepare(const int32_t* labels, int64_t frames, int64_t length) {
    const int64_t pitch = round_up_to_lanes(length + 1);
    const int64_t words_per_pair = ceil_div(frames, kFramesPerWord<Word>);
    Real* logits = logits_.ensure_capacity(frames * (pitch + 1));
    blank = sums_.ensure_capacity(2 * pitch);
    label = blank + pitch;
    skip_mask = words_.ensure_capacity((1 + words_per_pair) * pitch);
    moves = skip_mask + pitch;
    path = path_.ensure_capacity(frames);
    return {frames, length, labels, pitch, logits, logits + frames * pitch};
  }

  double *blank, *label;  // (pitch) each: the sums of the pairs
  Word*
      skip_mask;  // (pitch): -1 where a path may go directly from the previous label to this one, 0 elsewhere
  Word* moves;    // (frames / kFramesPerWord, pitch)
  int32_t* path;  // (T): the state at each frame

 private:
  Buffer<Real> logits_;
  Buffer<double> sums_;
  Buffer<Word> words_;
  Buffer<int32_t> path_;
};

// Fills work.path. found: false if no path has a score above -inf.
template <class Real>
struct BestPath {
  template <int kBytes>
  static CRNN_INLINE void run(const Text<Real>& text, ViterbiWorkspace<Real>* workspace, bool* found) {
    // A short text does not fill long vectors: use shorter ones.
    if constexpr (kBytes > 16) {
      if (text.length * int64_t(sizeof(double)) * 2 < kBytes) return run<kBytes / 2>(text, workspace, found);
    }
    ViterbiWorkspace<Real>& work = *workspace;
    start(text, work);
    for (int64_t t = 0; t < text.frames; ++t) advance_all<Vector<double, kBytes>>(text, work, t);
    const int64_t length = text.length;
    const double last_label = length == 0 ? kImpossible : work.label[length - 1];
    int32_t state = last_state(length, work.blank[length], last_label);
    *found = maximum(work.blank[length], last_label) > kImpossible;
    if (!*found) return;
    for (int64_t t = text.frames - 1; t >= 0; --t) {
      work.path[t] = state;
      const int64_t row = t / kFramesPerWord<Word> * text.pitch;
      state -= move_at(state, t, work.moves[row + state / 2]);
    }
  }

 private:
  using Word = typename ViterbiWorkspace<Real>::Word;

  static CRNN_INLINE void start(const Text<Real>& text, ViterbiWorkspace<Real>& work) {
    std::fill_n(work.blank, text.pitch, kImpossible);
    std::fill_n(work.label, text.pitch, kImpossible);
    work.blank[0] = ScorePair<double>::before_first_frame(0).blank;
    std::fill_n(work.skip_mask, text.pitch, Word(0));
    for (int64_t i = 1; i < text.length; ++i)
      work.skip_mask[i] = -Word(may_skip_blank(text.labels[i - 1], text.labels[i]));
  }

  // Advances the vectors of the pairs that are reachable at frame t.
  template <class Doubles>
  static CRNN_INLINE void advance_all(const Text<Real>& text, ViterbiWorkspace<Real>& work, int64_t t) {
    constexpr int kLanes = kLanesOf<Doubles>;
    using Logits = Vector<Real, kLanes * sizeof(Real)>;
    using Words = Vector<Word, kLanes * sizeof(Word)>;
    const int64_t in_word = t % kFramesPerWord<Word>;
    Word* moves = work.moves + t / kFramesPerWord<Word> * text.pitch;
    if (in_word == 0) std::fill_n(moves, text.pitch, Word(0));

    const LabelRange range = reachable_labels(t, text.frames, text.length);
    const int64_t first = range.begin / kLanes * kLanes;
    const Doubles blank_logit = broadcast<Doubles>(text.blank_logits[t]);
    const Words shift = broadcast<Words>(in_word * kBitsPerFrame);
    Doubles below = first == 0 ? broadcast<Doubles>(kImpossible) : load<Doubles>(work.label + first - kLanes);
    for (int64_t i = first; i <= range.end; i += kLanes) {
      ScorePair<Doubles> pair{load<Doubles>(work.blank + i), load<Doubles>(work.label + i)};
      const Doubles label = pair.label;
      const Doubles logits = convert_lanes<Doubles>(load<Logits>(text.label_logits + t * text.pitch + i));
      const Words chosen = advance<Words>(pair, shift_lanes_up(label, below), load<Words>(work.skip_mask + i),
                                          blank_logit, logits);
      store(work.blank + i, pair.blank);
      store(work.label + i, pair.label);
      store(moves + i, load<Words>(moves + i) | chosen << shift);
      below = label;
    }
  }
};

}  // namespace crnn::align
