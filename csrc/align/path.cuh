// The best path of each text on a GPU, with tokens, spans and scores; one block per text.
#pragma once

#include "align/memory_viterbi.cuh"
#include "align/register_viterbi.cuh"
#include "targets/dispatch_length.cuh"
#include "targets/lattice.h"

namespace crnn::align {

// Threads per block of a kernel for up to max_pairs pairs.
constexpr int threads_for(int64_t max_pairs) {
  return max_pairs <= kMaxPairsFourWarps ? 4 * gpu::kWarpSize : 8 * gpu::kWarpSize;
}

// Runs the recursion. Returns the last state of the best path, or -1 if there is no path. All threads of the
// block must call this; afterwards they see all moves.
template <class Lattice>
__device__ __forceinline__ int32_t find_last_state(Lattice lattice, int64_t length) {
  GPU_SHARED(last_blank, double);
  GPU_SHARED(last_label, double);
  if (threadIdx.x == 0) last_label = kImpossible;  // remains if the text has no labels
  __syncthreads();
  lattice.run();
  lattice.write_last(&last_blank, &last_label);
  __syncthreads();
  const bool possible = maximum(last_blank, last_label) > kImpossible;
  return possible ? last_state(length, last_blank, last_label) : -1;
}

// Traces the path back from the state at the last frame, with one warp. Within 32 frames a path visits at
// most 32 pairs: each lane loads the moves of one pair, and the lanes exchange them by shuffles.
//
// path: (T_n)
template <class Real>
__device__ inline void backtrace(const TextView<Real>& view, int32_t state, int32_t* path) {
  constexpr int kFrames = kFramesPerWord<Word>, kWords = gpu::kWarpSize / kFrames;
  const int lane = threadIdx.x;
  for (int64_t chunk = (view.frames - 1) / gpu::kWarpSize; chunk >= 0; --chunk) {
    const int64_t begin = chunk * gpu::kWarpSize;
    const int32_t first_pair = state / 2;
    Word words[kWords];
    for (int w = 0; w < kWords; ++w) {
      const int64_t t = begin + w * kFrames;
      const bool exists = t < view.frames && lane <= first_pair;
      words[w] = exists ? view.word(t, first_pair - lane) : 0;
    }
    int32_t lane_state = 0;
#pragma unroll
    for (int u = gpu::kWarpSize - 1; u >= 0; --u) {
      if (begin + u >= view.frames) continue;
      if (lane == u) lane_state = state;
      const Word word = __shfl_sync(gpu::kFullMask, words[u / kFrames], first_pair - state / 2);
      state -= move_at(state, u, word);
    }
    if (begin + lane < view.frames) path[begin + lane] = lane_state;
  }
}

// Writes the results of a text of sample n that has a path.
//
// path: (T_n)
template <int kThreads, class Real>
__device__ inline void write_path(const DeviceBatch& batch, int64_t n, const DeviceText& text,
                                  const TextView<Real>& view, const SliceBuffers<Real>& memory,
                                  const int32_t* path, const AlignmentView<Real>& aligned) {
  const Real* row_max = memory.row_max + n * batch.shape.frames;
  const Real* log_inverse_sum = memory.log_inverse_sum + n * batch.shape.frames;
  const int64_t m = text.batch_index;
  const auto logp_at = [&](int64_t t, int64_t state) {
    const Real logit = state % 2 != 0 ? view.label_logit(t, state / 2) : view.blank_logit(t);
    return (logit - row_max[t]) + log_inverse_sum[t];
  };
  double score = 0;
  for (int64_t t = threadIdx.x; t < view.frames; t += kThreads) {
    const int64_t state = path[t], label = state / 2;
    const bool on_label = state % 2 != 0;
    score += logp_at(t, state);
    aligned.write_token(m, t, on_label ? batch.label(text, label) : batch.blank);
    // The thread that handles the first frame of a span writes it.
    if (!on_label || (t > 0 && path[t - 1] == state)) continue;
    Span span{t};
    int64_t end = t;
    for (; end < view.frames && path[end] == state; ++end) span.add(end, logp_at(end, state));
    aligned.write_span(m, label, span, end);
  }
  score = gpu::tile_reduce<kThreads>(score, [](double a, double b) { return a + b; });
  if (threadIdx.x == 0) aligned.scores[m] = Real(score);
}

// Whether the rows and labels are valid, so that the score is not NaN. All threads of the block get the
// result.
template <class Real>
__device__ inline bool inputs_are_valid(const DeviceBatch& batch, const DeviceText& text,
                                        const TextView<Real>& view) {
  bool valid = text.valid;
  if (valid) {
    for (int64_t t = threadIdx.x; t < text.frames; t += blockDim.x)
      valid &= view.blank_logit(t) == view.blank_logit(t);
    for (int64_t i = threadIdx.x; i < text.length; i += blockDim.x)
      valid &= is_valid_label(batch.label(text, i), batch.shape.classes, batch.blank);
  }
  return !__syncthreads_or(!valid);
}

template <int64_t kMaxPairs, class Real>
__global__ void __launch_bounds__(threads_for(kMaxPairs))
    path_kernel(DeviceBatch batch, SliceBuffers<Real> memory, AlignmentView<Real> aligned) {
  constexpr int kThreads = threads_for(kMaxPairs);
  const BatchShape& shape = batch.shape;
  const int64_t slice_index = blockIdx.x, n = slice_index / shape.texts_per_sample;
  const DeviceText text = batch.text(n, slice_index - n * shape.texts_per_sample);
  const int64_t m = text.batch_index;
  const TextView<Real> view = memory.text_view(shape, text);
  const auto skips = [&](int64_t a, int64_t b) {
    return may_skip_blank(int32_t(batch.label(text, a)), int32_t(batch.label(text, b)));
  };

  const bool valid = inputs_are_valid(batch, text, view);
  int32_t last = -1;
  // A path has at least as many frames as labels. Longer texts do not fit the layouts.
  if (valid && text.length <= text.frames) {
    last = dispatch_pairs<kMaxPairs>(
        view.pairs(),
        [&](auto pairs, auto warps) {
          return find_last_state(RegisterViterbi<Real, pairs(), warps()>(view, skips), text.length);
        },
        [&] {
          ScorePair<double>* states = memory.states + 2 * (text.target_offset + slice_index);
          return find_last_state(MemoryViterbi(view, skips, states), text.length);
        });
  }
  const bool found = last >= 0;
  if (found) {
    int32_t* path = memory.path + slice_index * shape.frames;
    if (threadIdx.x < gpu::kWarpSize) backtrace(view, last, path);
    __syncthreads();
    write_path<kThreads>(batch, n, text, view, memory, path, aligned);
  } else if (threadIdx.x == 0) {
    aligned.scores[m] = valid ? Real(kImpossible) : std::numeric_limits<Real>::quiet_NaN();
  }
  for (int64_t t = (found ? text.frames : 0) + threadIdx.x; t < shape.frames; t += kThreads)
    aligned.write_padding_frame(m, t);
  for (int64_t i = (found ? text.length : 0) + threadIdx.x; i < aligned.columns; i += kThreads)
    aligned.write_padding(m, i);
}

}  // namespace crnn::align
