// One text as the kernels of align see it.
#pragma once

#include "align/path.h"
#include "targets/device_batch.h"

namespace crnn::align {

// The words of moves on a GPU.
using Word = uint32_t;

inline CRNN_HOST_DEVICE int64_t num_words(int64_t frames) {
  return (frames + kFramesPerWord<Word> - 1) / kFramesPerWord<Word>;
}

template <class Real>
struct TextView {
  int64_t frames, length;
  const Real* logits;  // (T_n, S_m + 1): of the labels, then of blank
  Word* moves;         // (num_words(T_n), S_m + 1)

  CRNN_INLINE int64_t pairs() const { return length + 1; }
  CRNN_INLINE Real label_logit(int64_t t, int64_t i) const { return logits[t * pairs() + i]; }
  CRNN_INLINE Real blank_logit(int64_t t) const { return logits[t * pairs() + length]; }
  CRNN_INLINE Word& word(int64_t t, int64_t pair) const {
    return moves[t / kFramesPerWord<Word> * pairs() + pair];
  }
};

// What all texts of a slice have of memory. Those of a text begin behind those of the texts before it.
template <class Real>
struct SliceBuffers {
  Real* logits;               // T * (labels + texts)
  Real* row_max;              // (N, T): log_softmax(row)[c] = (row[c] - row_max) + log_inverse_sum,
  Real* log_inverse_sum;      // (N, T): 0 and 0 where rows are taken as they are
  Word* moves;                // num_words(T) * (labels + texts)
  ScorePair<double>* states;  // 2 * (labels + texts), where a text may be too long for registers
  int32_t* path;              // (texts, T): the state at each frame

  CRNN_INLINE TextView<Real> text_view(const BatchShape& shape, const DeviceText& text) const {
    const int64_t first_pair = text.target_offset + text.slice_index;
    return {text.frames, text.length, logits + shape.frames * first_pair,
            moves + num_words(shape.frames) * first_pair};
  }
};

}  // namespace crnn::align
