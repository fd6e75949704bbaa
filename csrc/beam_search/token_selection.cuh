// The tokens by which the prefixes of a frame may be extended, and the statistics of its row, for all frames
// at once.
#pragma once

#include "beam_search/block_top_k.cuh"
#include "beam_search/token.h"
#include "common/lengths.h"
#include "common/row_statistics.cuh"
#include "common/row_tile.cuh"

namespace crnn::beam_search {

// What the search reads of each row besides single logits.
template <class Real>
struct FrameShortlists {
  Real* row_max;        // (N, T)
  Real* inverse_sum;    // (N, T): see common/rows.h; NaN for a row that cannot be used
  Token<Real>* tokens;  // (N, T, listed): the best tokens, best first; {-inf, kNone} behind the last one
  int shortlist_size;   // 0: none are listed
};

template <class Real>
__device__ inline Token<Real> no_token() {
  return {kMinusInfinity<Real>, -1};
}

// One row a block, in one read for its statistics and one more, from the cache, for its tokens.
//
// Each thread knows the best token of those it has read. Of a row with more tokens than threads, the
// `listed`-th best of these, if there are as many, bounds the tokens to list from below, and hardly more
// tokens than that are above it.
//
// logits: (T, N, C); length_of: (N,); frames.*: written at live frames only
template <class Storage, class Real>
__global__ void __launch_bounds__(kRowBlockSize)
    select_tokens_kernel(TncView<const Storage> logits, IndexView length_of, int64_t frame_count,
                         int64_t samples, int classes, int blank, bool normalize, Real largest,
                         FrameShortlists<Real> frames) {
  using Tokens = BlockTopK<Token<Real>>;
  GPU_DYNAMIC_SHARED(Token<Real>, items);  // (Tokens::capacity(shortlist_size, kRowBlockSize))
  GPU_SHARED(count, int);
  const RowTile<kRowBlockSize> tile(frame_count, samples);
  const bool live = tile.t < length_or_zero(length_of(tile.n), frame_count);
  const Storage* row = logits.row(tile.t, tile.n);
  const int64_t at = tile.n * frame_count + tile.t;
  const int live_classes = live ? classes : 0;

  // 1. Statistics.
  PartialSoftmax<Real> softmax = PartialSoftmax<Real>::empty();
  Token<Real> best = no_token<Real>();
  bool usable = true;
  read_row<kRowBlockSize>(row, logits.stride_c, live_classes, tile.thread,
                          [&](const auto& values, int first_class) {
                            if (normalize) softmax.add(values);
                            int c = first_class;
                            for (const Real value : values) {
                              usable &= value < largest;
                              if (value > best.logit && c != blank) best = {value, c};
                              ++c;
                            }
                          });
  if (normalize) softmax = merge_partial_softmax<kRowBlockSize>(softmax);
  const bool of_all = !__syncthreads_or(!usable);
  if (live && tile.thread == 0) {
    RowStatistics<Real> statistics{0, of_all ? Real(1) : std::numeric_limits<Real>::quiet_NaN()};
    if (normalize) statistics = to_row_statistics(softmax);
    frames.row_max[at] = statistics.row_max;
    frames.inverse_sum[at] = statistics.inverse_sum;
  }

  // 2. Tokens.
  if (frames.shortlist_size == 0) return;
  Token<Real> threshold = no_token<Real>();
  if (frames.shortlist_size <= kRowBlockSize && classes > kRowBlockSize) {
    items[tile.thread] = best;
    if (best.token < 0) items[tile.thread].token = -1 - tile.thread;  // no two are equal
    Tokens bests(items, &count, kRowBlockSize, frames.shortlist_size, no_token<Real>());
    bests.compact();
    threshold = items[frames.shortlist_size - 1];
    __syncthreads();
  }
  Tokens tokens(items, &count, 0, frames.shortlist_size, threshold);
  for (int first = 0; first < live_classes; first += kRowBlockSize) {
    const int c = first + tile.thread;
    Token<Real> token = no_token<Real>();
    if (c < classes && c != blank) token = {gpu::to_compute(row[c * logits.stride_c]), c};
    tokens.push(token.logit > kMinusInfinity<Real>, token);
  }
  const int found = tokens.compact();
  for (int i = tile.thread; live && i < frames.shortlist_size; i += kRowBlockSize)
    frames.tokens[at * frames.shortlist_size + i] = i < found ? items[i] : no_token<Real>();
}

}  // namespace crnn::beam_search
