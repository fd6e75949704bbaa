// ctc_loss on the CPU: two reads and one write of the (T, N, C) tensor.
//
//   forward    each sample: 1. row statistics and emissions  2. the recursion, which computes the loss and
//   the
//              posteriors of the labels
//   backward   3. each row: (softmax - posterior) * incoming gradient
//
// Threads share samples and rows. No thread adds to a result of another one, so the result does not depend on
// the number of threads.
#include "ctc_loss/gradient.h"
#include "forward_backward/emissions.h"
#include "forward_backward/recursion.h"
#include "targets/work_partition.h"

namespace crnn::ctc_loss {
namespace {

// Fills the parts of `saved` outside of the sample's frames, so that equal inputs give bitwise equal tensors,
// and marks samples whose gradient is zero or NaN.
template <class Real>
void save(const BatchShape& shape, const Batch& batch, int64_t n, double loss, bool no_gradient,
          const Sample<Real>& sample, const Saved<Real>& saved) {
  const int64_t frames = batch.frames[n], first = n * shape.frames;
  Real* row_max = saved.row_max + first;
  Real* posterior = saved.posterior + shape.frames * batch.target_offsets[n];
  // Concatenated labels after the last sample belong to that sample, like padding.
  const bool last = n + 1 == shape.samples;
  const int64_t labels = shape.padded ? shape.padded_length
                         : last       ? shape.labels - batch.target_offsets[n]
                                      : batch.length[n];
  int64_t written = 0;
  if (loss < kInfinity) {
    written = frames * sample.target_length;
    std::copy_n(sample.label_mantissa, written, posterior);
  } else {
    std::fill_n(row_max, frames,
                no_gradient ? std::numeric_limits<Real>::infinity() : std::numeric_limits<Real>::quiet_NaN());
    std::fill_n(saved.inverse_sum + first, frames, Real(0));
  }
  std::fill(row_max + frames, row_max + shape.frames, Real(0));
  std::fill(saved.inverse_sum + first + frames, saved.inverse_sum + first + shape.frames, Real(0));
  std::fill(posterior + written, posterior + shape.frames * labels, Real(0));
}

// Returns the losses (N). saved_data: null if no gradient is needed.
template <class Storage>
std::vector<double> forward(const BatchShape& shape, const Batch& batch, const Tensor& logits, int64_t blank,
                            bool zero_infinity, bool normalize, void* saved_data) {
  using Real = typename ComputeType<Storage>::Real;
  const TncView<const Storage> rows(logits.const_data_ptr(), logits);
  const bool with_grad = saved_data != nullptr;
  const Saved<Real> saved(static_cast<Real*>(saved_data), shape);
  std::vector<double> losses(shape.samples);

  const WorkPartition partition(shape);
  std::vector<RecursionWorkspace<Real>> workspaces(partition.workers);
  std::vector<RowScratch<Real>> scratch(maximum(partition.workers, partition.row_workers));
  std::vector<Sample<Real>> samples(partition.workers);
  const StatisticsMode needed = normalize ? StatisticsMode::kCompute : StatisticsMode::kNone;
  std::vector<Real> statistics(with_grad ? 0 : 2 * shape.frames * partition.workers);
  const auto prepare = [&](int64_t n, int64_t workspace) {
    Sample<Real>& sample = samples[workspace];
    sample = workspaces[workspace].prepare(batch.labels.data() + batch.target_offsets[n], batch.frames[n],
                                           batch.length[n], with_grad);
    sample.row_max =
        with_grad ? saved.row_max + n * shape.frames : statistics.data() + 2 * shape.frames * workspace;
    sample.inverse_sum = with_grad ? saved.inverse_sum + n * shape.frames : sample.row_max + shape.frames;
  };
  const auto gather = [&](int64_t n, int64_t workspace, int64_t begin, int64_t end, int64_t worker) {
    if (batch.valid[n])
      run_vectorized<GatherEmissions<Storage>>(rows, shape.classes, blank, needed, n, begin,
                                               std::min(end, batch.frames[n]), &scratch[worker],
                                               samples[workspace]);
  };
  const auto finish = [&](int64_t n, int64_t workspace) {
    const Sample<Real>& sample = samples[workspace];
    double loss = std::numeric_limits<double>::quiet_NaN();
    if (batch.valid[n]) loss = compute_loss(sample, workspaces[workspace], with_grad);
    const bool no_gradient = loss == kInfinity && zero_infinity;
    if (with_grad) save(shape, batch, n, loss, no_gradient, sample, saved);
    losses[n] = no_gradient ? 0 : loss;
  };

  if (partition.rows_first) {
    for (int64_t n = 0; n < shape.samples; ++n) prepare(n, n);
    parallel_for(shape.samples * partition.chunks_per_sample, partition.row_workers,
                 [&](int64_t item, int64_t worker) {
                   const int64_t n = item / partition.chunks_per_sample,
                                 begin = item % partition.chunks_per_sample * partition.chunk_rows;
                   gather(n, n, begin, begin + partition.chunk_rows, worker);
                 });
    parallel_for(shape.samples, partition.workers, [&](int64_t n, int64_t) { finish(n, n); });
  } else {
    parallel_for(shape.samples, partition.workers, [&](int64_t n, int64_t worker) {
      prepare(n, worker);
      gather(n, worker, 0, batch.frames[n], worker);
      finish(n, worker);
    });
  }
  return losses;
}

std::tuple<Tensor, Tensor> ctc_loss_cpu(const Tensor& logits, const Tensor& targets,
                                        const Tensor& input_lengths, const Tensor& target_lengths,
                                        int64_t blank, int64_t reduction_code, bool zero_infinity,
                                        bool normalize, bool validate, bool with_grad,
                                        int64_t longest_target) {
  const BatchShape shape =
      check_tensors(logits, targets, input_lengths, target_lengths, blank, reduction_code, longest_target);
  const Reduction reduction = Reduction(reduction_code);
  const Batch batch = read_batch(shape, targets, input_lengths, target_lengths, blank, validate, kOp);
  const ScalarType type = compute_type(logits.scalar_type());
  const bool reduced = reduction != Reduction::kNone;
  Tensor loss = reduced ? new_tensor(logits, {}, type) : new_tensor(logits, {shape.samples}, type);
  Tensor saved = new_tensor(logits, {with_grad ? saved_elements(shape) : 0}, type);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    const std::vector<double> losses = forward<Storage>(shape, batch, logits, blank, zero_infinity, normalize,
                                                        with_grad ? saved.mutable_data_ptr() : nullptr);
    auto* result = static_cast<typename ComputeType<Storage>::Real*>(loss.mutable_data_ptr());
    if (!reduced) {
      std::copy(losses.begin(), losses.end(), result);
      return;
    }
    double total =
        reduction == Reduction::kMean && shape.samples == 0 ? std::numeric_limits<double>::quiet_NaN() : 0.0;
    for (int64_t n = 0; n < shape.samples; ++n)
      total += losses[n] * reduction_weight(shape.samples, batch.length[n], reduction);
    *result = total;
  });
  return {loss, saved};
}

Tensor ctc_loss_backward_cpu(const Tensor& grad_loss, const Tensor& logits, const Tensor& targets,
                             const Tensor& input_lengths, const Tensor& target_lengths,
                             const Tensor& saved_tensor, int64_t blank, int64_t reduction_code,
                             bool normalize, int64_t longest_target) {
  const BatchShape shape =
      check_tensors(logits, targets, input_lengths, target_lengths, blank, reduction_code, longest_target);
  const Reduction reduction = Reduction(reduction_code);
  check_backward(grad_loss, logits, saved_tensor, shape, reduction);
  const Batch batch = read_batch(shape, targets, input_lengths, target_lengths, blank, false, kOp);
  Tensor gradient = torch::stable::empty_like(logits);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    const Saved<const Real> saved(static_cast<const Real*>(saved_tensor.const_data_ptr()), shape);
    const Real* incoming = static_cast<const Real*>(grad_loss.const_data_ptr());
    const int64_t stride = reduction == Reduction::kNone ? grad_loss.stride(0) : 0;
    std::vector<Real> scale(shape.samples);
    for (int64_t n = 0; n < shape.samples; ++n)
      scale[n] =
          Real(double(incoming[n * stride]) * reduction_weight(shape.samples, batch.length[n], reduction));

    const TncView<const Storage> logit_rows(logits.const_data_ptr(), logits);
    const TncView<Storage> gradient_rows(gradient.mutable_data_ptr(), gradient);
    const int64_t all_rows = shape.frames * shape.samples, chunk_rows = rows_per_chunk(shape.classes);
    const int64_t chunks = ceil_div(all_rows, chunk_rows);
    const int64_t workers = num_workers(chunks, 1);
    std::vector<RowScratch<Real>> scratch(workers);
    parallel_for(chunks, workers, [&](int64_t item, int64_t worker) {
      run_vectorized<GradientRows<Storage>>(shape, batch, logit_rows, gradient_rows, blank, normalize, saved,
                                            scale.data(), &scratch[worker], item * chunk_rows,
                                            std::min(all_rows, (item + 1) * chunk_rows));
    });
  });
  return gradient;
}

}  // namespace
}  // namespace crnn::ctc_loss

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CPU, m) {
  m.impl("ctc_loss", TORCH_BOX(&crnn::ctc_loss::ctc_loss_cpu));
  m.impl("ctc_loss_backward", TORCH_BOX(&crnn::ctc_loss::ctc_loss_backward_cpu));
}
