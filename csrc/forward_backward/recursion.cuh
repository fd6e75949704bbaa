// The recursion on a GPU: one block per text, half of its threads for alpha and half for beta.
#pragma once

#include "forward_backward/emissions.cuh"
#include "forward_backward/memory_pass.cuh"
#include "forward_backward/register_pass.cuh"
#include "forward_backward/saved.h"
#include "targets/device_batch.h"
#include "targets/dispatch_length.cuh"
#include "targets/lattice.h"

namespace crnn::forward_backward {

// Threads per block of a kernel for up to max_pairs pairs.
constexpr int threads_for(int64_t max_pairs) {
  return max_pairs <= kMaxPairsOneWarp ? 2 * gpu::kWarpSize : 8 * gpu::kWarpSize;
}

// Memory that the recursion uses, for all texts.
template <class Real>
struct RecursionBuffers {
  PackedExtended<Real>* emissions;  // T * (labels + texts), see text_emissions
  PackedExtended<Real>* stored;     // T * labels; null without a gradient
  PackedExtended<Real>*
      states;         // kStatesPerPair * (labels + texts) if a target may be too long for registers
  Saved<Real> saved;  // only its statistics without a gradient
};

// Returns the negative log-likelihood of the target, +inf if it is impossible. With `with_grad`, also writes
// sample.posterior unless the loss is +inf. All threads of the block must call this, and all get the loss.
template <int kThreads, class Real, class Pass>
__device__ __forceinline__ double run_passes(Pass pass, const SampleView<Real>& sample, bool with_grad) {
  const int64_t middle = (sample.frames + 1) / 2;
  const int64_t steps = pass.is_alpha() ? middle : sample.frames - middle;
  if (with_grad) {
    pass.template run<PassMode::kStore>(0, steps, middle, Normalizer<Real>{});
  } else {
    pass.template run<PassMode::kDiscard>(0, steps, middle, Normalizer<Real>{});
  }
  const Extended<double> z = gpu::tile_reduce<kThreads>(
      pass.total_probability(), [](const auto& a, const auto& b) { return normalized(a + b); });
  if (z.exponent < kVanishedExponent) return std::numeric_limits<double>::infinity();
  if (with_grad) {
    const Normalizer<Real> total{Real(1 / z.mantissa), ExponentOf<Real>(z.exponent)};
    pass.template run<PassMode::kCombine>(steps, sample.frames - steps, middle, total);
  }
  return 0 - kLn2 * (double(z.exponent) + gpu::log2(z.mantissa));  // 0 instead of -0 for a certain target
}

// Runs the passes in the layout for the target's length. states: of all texts; first_pair: number of pairs of
// all texts before this one.
template <int64_t kMaxPairs, class Real, class Skips>
__device__ __forceinline__ double compute_loss(const SampleView<Real>& sample, const Skips& skips,
                                               PackedExtended<Real>* states, int64_t first_pair,
                                               bool with_grad) {
  constexpr int kThreads = threads_for(kMaxPairs);
  const int thread = threadIdx.x;
  return dispatch_pairs<kMaxPairs>(
      sample.length + 1,
      [&](auto pairs, auto warps) {
        using Pass = RegisterPass<Real, pairs(), warps()>;
        return run_passes<kThreads>(Pass(sample, thread, skips), sample, with_grad);
      },
      [&] {
        using Pass = MemoryPass<Real, kThreads / 2, Skips>;
        return run_passes<kThreads>(Pass(sample, thread, skips, states + kStatesPerPair * first_pair), sample,
                                    with_grad);
      });
}

// Whether the rows and labels are valid, so that the loss is not NaN. All threads of the block get the
// result.
template <class Real>
__device__ inline bool inputs_are_valid(const DeviceBatch& batch, const DeviceText& text,
                                        const Real* inverse_sums) {
  bool valid = text.valid;
  if (valid) {
    for (int64_t t = threadIdx.x; t < text.frames; t += blockDim.x)
      valid &= inverse_sums[t] == inverse_sums[t];
    for (int64_t i = threadIdx.x; i < text.length; i += blockDim.x)
      valid &= is_valid_label(batch.label(text, i), batch.shape.classes, batch.blank);
  }
  return !__syncthreads_or(!valid);
}

// Marks the frames of a sample whose gradient is zero or NaN, and zeros the posteriors that the recursion has
// not written.
template <class Real>
__device__ inline void mark_without_gradient(const BatchShape& shape, const DeviceText& sample,
                                             bool no_gradient, const Saved<Real>& saved) {
  const Real row_max =
      no_gradient ? std::numeric_limits<Real>::infinity() : std::numeric_limits<Real>::quiet_NaN();
  for (int64_t t = threadIdx.x; t < sample.frames; t += blockDim.x) {
    saved.row_max[sample.slice_index * shape.frames + t] = row_max;
    saved.inverse_sum[sample.slice_index * shape.frames + t] = 0;
  }
  Real* posterior = saved.posterior + shape.frames * sample.target_offset;
  for (int64_t i = threadIdx.x; i < sample.frames * sample.length; i += blockDim.x) posterior[i] = 0;
}

// The loss of each text. losses: (texts), written for Reduction::kNone; terms: (texts), the summands of any
// other reduction.
template <int64_t kMaxPairs, class Real>
__global__ void __launch_bounds__(threads_for(kMaxPairs))
    recursion_kernel(DeviceBatch batch, RecursionBuffers<Real> memory, LossOptions options, Real* losses,
                     double* terms) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const BatchShape& shape = batch.shape;
  // Evaluated again after the recursion, because no register is free to keep the text.
  const auto text_of_block = [&batch] {
    const uint32_t n = blockIdx.x / uint32_t(batch.shape.texts_per_sample);
    return batch.text(n, blockIdx.x - n * uint32_t(batch.shape.texts_per_sample));
  };
  const DeviceText text = text_of_block();
  const int64_t slice_index = text.slice_index;
  const int64_t labels_before = shape.frames * text.target_offset;
  const bool with_grad = options.with_grad;
  const auto skips = [&](int64_t a, int64_t b) {
    return may_skip_blank(int32_t(batch.label(text, a)), int32_t(batch.label(text, b)));
  };

  double loss = std::numeric_limits<double>::quiet_NaN();
  if (inputs_are_valid(batch, text, memory.saved.inverse_sum + slice_index * shape.frames)) {
    const SampleView<Real> sample{text.frames, text.length, text_emissions(memory.emissions, shape, text),
                                  with_grad ? memory.stored + labels_before : nullptr,
                                  with_grad ? memory.saved.posterior + labels_before : nullptr};
    // A path has at least as many frames as labels. Longer targets do not fit the layouts.
    loss = text.length > text.frames ? kInfinity
                                     : compute_loss<kMaxPairs>(sample, skips, memory.states,
                                                               text.target_offset + slice_index, with_grad);
  }
  const DeviceText same_text = text_of_block();
  const bool no_gradient = options.zero_infinity && loss == kInfinity;
  if (with_grad && !(loss < kInfinity)) mark_without_gradient(shape, same_text, no_gradient, memory.saved);
  if (threadIdx.x != 0) return;
  if (no_gradient) loss = 0;
  if (options.reduction == Reduction::kNone) {
    losses[same_text.batch_index] =
        Real(options.negated ? 0 - loss : loss);  // 0 instead of -0 for a certain text
  } else {
    terms[same_text.batch_index] =
        loss * reduction_weight(batch.all_samples, same_text.length, options.reduction);
  }
}

// Instantiated for each Real in its own file, see forward.cu.
template <class Real>
void launch_recursion(const DeviceBatch& batch, const RecursionBuffers<Real>& memory,
                      const LossOptions& options, Real* losses, double* terms, gpu::Stream stream) {
  const BatchShape& shape = batch.shape;
  dispatch_max_pairs<2 * gpu::kWarpSize, kMaxPairsOneWarp>(shape.max_labels() + 1, [&](auto max_pairs) {
    gpu::launch(recursion_kernel<max_pairs(), Real>, shape.texts(), threads_for(max_pairs()), 0, stream,
                batch, memory, options, losses, terms);
  });
}

constexpr int kReductionBlockSize = 256;

// One block, summing in an order that depends on N alone.
//
// terms: (N); loss: ()
template <class Real>
__global__ void __launch_bounds__(kReductionBlockSize)
    reduction_kernel(const double* __restrict__ terms, int64_t samples, bool nan_if_none, Real* loss) {
  double sum = 0;
  for (int64_t n = threadIdx.x; n < samples; n += kReductionBlockSize) sum += terms[n];
  sum = gpu::tile_reduce<kReductionBlockSize>(sum, [](double a, double b) { return a + b; });
  if (threadIdx.x != 0) return;
  *loss = samples == 0 && nan_if_none ? std::numeric_limits<Real>::quiet_NaN() : Real(sum);
}

}  // namespace crnn::forward_backward
