// One text as the kernels of align see it, and the scratch memory of a slice.
#pragma once

#include "align/path.h"
#include "targets/device_batch.h"

namespace crnn::align {

// The word type for moves on a GPU.
using Word = uint32_t;

inline CRNN_HOST_DEVICE int64_t num_words(int64_t frames) {
  return (frames + kFramesPerWord<Word> - 1) / kFramesPerWord<Word>;
}

template <class Real>
struct TextView {
  int64_t frames, length;
  const Real* logits;  // (T_n, S_m + 1): labels, then blank
  Word* moves;         // (num_words(T_n), S_m + 1)

  CRNN_INLINE int64_t pairs() const { return length + 1; }
  CRNN_INLINE Real label_logit(int64_t t, int64_t i) const { return logits[t * pairs() + i]; }
  CRNN_INLINE Real blank_logit(int64_t t) const { return logits[t * pairs() + length]; }
  CRNN_INLINE Word& word(int64_t t, int64_t pair) const {
    return moves[t / kFramesPerWord<Word> * pairs() + pair];
  }
};

// Scratch memory for all texts of a slice. The parts of the texts follow each other.
template <class Real>
struct SliceBuffers {
  Real* logits;               // T * (labels + texts)
  Real* row_max;              // (N, T): log_softmax(row)[c] = (row[c] - row_max) + log_inverse_sum,
  Real* log_inverse_sum;      // (N, T); both are 0 without normalization
  Word* moves;                // num_words(T) * (labels + texts)
  ScorePair<double>* states;  // 2 * (labels + texts) if a text may be too long for registers
  int32_t* path;              // (texts, T): the state at each frame

  CRNN_INLINE TextView<Real> text_view(const BatchShape& shape, const DeviceText& text) const {
    const int64_t first_pair = text.target_offset + text.slice_index;
    return {text.frames, text.length, logits + shape.frames * first_pair,
            moves + num_words(shape.frames) * first_pair};
  }
};

}  // namespace crnn::align
