// Row statistics and top-k selection of tokens for all frames in one kernel.
#pragma once

#include "beam_search/block_top_k.cuh"
#include "beam_search/token.h"
#include "common/lengths.h"
#include "common/row_statistics.cuh"
#include "common/row_tile.cuh"

namespace crnn::beam_search {

// Statistics and shortlist of each frame.
template <class Real>
struct FrameShortlists {
  Real* row_max;        // (N, T)
  Real* inverse_sum;    // (N, T): see common/rows.h; NaN for a row with NaN or +inf
  Token<Real>* tokens;  // (N, T, shortlist_size): the best tokens, best first; padded with {-inf, kNone}
  int shortlist_size;   // 0: no shortlists
};

template <class Real>
__device__ inline Token<Real> no_token() {
  return {kMinusInfinity<Real>, -1};
}

// One block per row. A first read computes the statistics, a second read, from the cache, selects the tokens.
//
// Each thread remembers the best token that it has read. If a row has more tokens than threads, the
// shortlist_size-th best of these, if there are as many, is a lower bound for the shortlist, and few other
// tokens are above it.
//
// logits: (T, N, C); length_of: (N,); frames.*: written only for frames within a sample's length
template <class Storage, class Real>
__global__ void __launch_bounds__(kRowBlockSize)
    select_tokens_kernel(TncView<const Storage> logits, IndexView length_of, int64_t frame_count,
                         int64_t samples, int classes, int blank, bool normalize, Real max_log_prob,
                         FrameShortlists<Real> frames) {
  using Tokens = BlockTopK<Token<Real>>;
  GPU_DYNAMIC_SHARED(Token<Real>, items);  // (Tokens::capacity(shortlist_size, kRowBlockSize))
  GPU_SHARED(count, int);
  const RowTile<kRowBlockSize> tile(frame_count, samples);
  const bool is_valid = tile.t < length_or_zero(length_of(tile.n), frame_count);
  const Storage* row = logits.row(tile.t, tile.n);
  const int64_t at = tile.n * frame_count + tile.t;
  const int row_classes = is_valid ? classes : 0;

  // 1. Row statistics.
  PartialSoftmax<Real> softmax = PartialSoftmax<Real>::empty();
  Token<Real> best = no_token<Real>();
  bool usable = true;
  read_row<kRowBlockSize>(row, logits.stride_c, row_classes, tile.thread,
                          [&](const auto& values, int first_class) {
                            if (normalize) softmax.add(values);
                            int c = first_class;
                            for (const Real value : values) {
                              usable &= value < max_log_prob;
                              if (value > best.logit && c != blank) best = {value, c};
                              ++c;
                            }
                          });
  if (normalize) softmax = merge_partial_softmax<kRowBlockSize>(softmax);
  const bool row_usable = !__syncthreads_or(!usable);
  if (is_valid && tile.thread == 0) {
    RowStatistics<Real> statistics{0, row_usable ? Real(1) : std::numeric_limits<Real>::quiet_NaN()};
    if (normalize) statistics = to_row_statistics(softmax);
    frames.row_max[at] = statistics.row_max;
    frames.inverse_sum[at] = statistics.inverse_sum;
  }

  // 2. Shortlist.
  if (frames.shortlist_size == 0) return;
  Token<Real> threshold = no_token<Real>();
  if (frames.shortlist_size <= kRowBlockSize && classes > kRowBlockSize) {
    items[tile.thread] = best;
    if (best.token < 0) items[tile.thread].token = -1 - tile.thread;  // items must be distinct
    Tokens thread_bests(items, &count, kRowBlockSize, frames.shortlist_size, no_token<Real>());
    thread_bests.compact();
    threshold = items[frames.shortlist_size - 1];
    __syncthreads();
  }
  Tokens tokens(items, &count, 0, frames.shortlist_size, threshold);
  for (int first = 0; first < row_classes; first += kRowBlockSize) {
    const int c = first + tile.thread;
    Token<Real> token = no_token<Real>();
    if (c < classes && c != blank) token = {gpu::to_compute(row[c * logits.stride_c]), c};
    tokens.push(token.logit > kMinusInfinity<Real>, token);
  }
  const int selected = tokens.compact();
  for (int i = tile.thread; is_valid && i < frames.shortlist_size; i += kRowBlockSize)
    frames.tokens[at * frames.shortlist_size + i] = i < selected ? items[i] : no_token<Real>();
}

}  // namespace crnn::beam_search
