// The tokens by which the prefixes of a frame may be extended, and the statistics of its row, for all frames
// at once.
#pragma once

#include "beam_search/best_items.cuh"
#include "beam_search/token.h"
#include "common/lengths.h"
#include "common/row_group.h"
#include "common/softmax_sum.h"

namespace crnn::beam_search {

// What the search reads of each row besides single logits.
template <class Real>
struct Frames {
  Real* peak;           // (N, T)
  Real* inverse_sum;    // (N, T): see common/rows.h; NaN for a row that cannot be used
  Token<Real>* tokens;  // (N, T, listed): the best tokens, best first; {-inf, kNone} behind the last one
  int listed;           // 0: none are listed
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
__global__ void __launch_bounds__(kRowBlock)
    tokens_kernel(Rows<const Storage> logits, IndexView length_of, int64_t frame_count, int64_t samples,
                  int classes, int blank, bool normalize, Real largest, Frames<Real> frames) {
  using Tokens = BestItems<Token<Real>>;
  GPU_DYNAMIC_SHARED(Token<Real>, items);  // (Tokens::capacity(listed, kRowBlock))
  GPU_SHARED(count, int);
  const RowGroup<kRowBlock> group(frame_count, samples);
  const bool live = group.t < live_frames(length_of(group.n), frame_count);
  const Storage* row = logits.row(group.t, group.n);
  const int64_t at = group.n * frame_count + group.t;
  const int live_classes = live ? classes : 0;

  // 1. Statistics.
  SoftmaxSum<Real> softmax = SoftmaxSum<Real>::empty();
  Token<Real> best = no_token<Real>();
  bool usable = true;
  read_row<kRowBlock>(row, logits.stride_c, live_classes, group.thread,
                      [&](const auto& values, int first_class) {
                        if (normalize) softmax.add(values);
                        int c = first_class;
                        for (const Real value : values) {
                          usable &= value < largest;
                          if (value > best.logit && c != blank) best = {value, c};
                          ++c;
                        }
                      });
  if (normalize) softmax = joined_parts<kRowBlock>(softmax);
  const bool of_all = !__syncthreads_or(!usable);
  if (live && group.thread == 0) {
    RowStatistics<Real> statistics{0, of_all ? Real(1) : std::numeric_limits<Real>::quiet_NaN()};
    if (normalize) statistics = statistics_of(softmax);
    frames.peak[at] = statistics.peak;
    frames.inverse_sum[at] = statistics.inverse_sum;
  }

  // 2. Tokens.
  if (frames.listed == 0) return;
  Token<Real> bar = no_token<Real>();
  if (frames.listed <= kRowBlock && classes > kRowBlock) {
    items[group.thread] = best;
    if (best.token < 0) items[group.thread].token = -1 - group.thread;  // no two are equal
    Tokens bests(items, &count, kRowBlock, frames.listed, no_token<Real>());
    bests.settle();
    bar = items[frames.listed - 1];
    __syncthreads();
  }
  Tokens tokens(items, &count, 0, frames.listed, bar);
  for (int first = 0; first < live_classes; first += kRowBlock) {
    const int c = first + group.thread;
    Token<Real> token = no_token<Real>();
    if (c < classes && c != blank) token = {gpu::to_compute(row[c * logits.stride_c]), c};
    tokens.offer(token.logit > kMinusInfinity<Real>, token);
  }
  const int found = tokens.settle();
  for (int i = group.thread; live && i < frames.listed; i += kRowBlock)
    frames.tokens[at * frames.listed + i] = i < found ? items[i] : no_token<Real>();
}

}  // namespace crnn::beam_search
