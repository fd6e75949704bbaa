// log_probability on the CPU: the forward pass of ctc_loss for several texts per sample. The statistics of
// the rows are computed once.
#include "forward_backward/emissions.h"
#include "forward_backward/recursion.h"
#include "log_probability/log_probability.h"
#include "targets/batch.h"
#include "targets/work_partition.h"

namespace crnn::log_probability {
namespace {

using namespace forward_backward;

// log_p: (M,)
template <class Storage, class Real>
void compute(const BatchShape& shape, const Batch& batch, const Tensor& logits, int64_t blank, bool normalize,
             Real* log_p) {
  const TncView<const Storage> rows(logits.const_data_ptr(), logits);
  const WorkPartition partition(shape);
  std::vector<RowScratch<Real>> scratch(maximum(partition.workers, partition.row_workers));
  std::vector<RecursionWorkspace<Real>> workspaces(partition.workers);
  // (N, T) each; (workers, T) for log-probabilities, because which rows are invalid depends on the text.
  const int64_t count = shape.frames * (normalize ? shape.samples : partition.workers);
  std::vector<Real> row_maxima(count), inverse_sums(count);

  const auto on_rows = [&](int64_t n, int64_t begin, int64_t end, int64_t worker) {
    if (!normalize) return;
    const int64_t first = n * shape.frames + begin;
    run_vectorized<ComputeRowStatistics<Storage>>(rows, shape.classes, n, begin,
                                                  minimum(end, batch.frames[n]), &scratch[worker],
                                                  row_maxima.data() + first, inverse_sums.data() + first);
  };
  const auto on_text = [&](int64_t m, int64_t n, bool with_rows, int64_t worker) {
    double loss = std::numeric_limits<double>::quiet_NaN();
    if (batch.valid[m]) {
      Sample<Real> text = workspaces[worker].prepare(batch.labels.data() + batch.target_offsets[m],
                                                     batch.frames[n], batch.length[m], false);
      text.row_max = row_maxima.data() + shape.frames * (normalize ? n : worker);
      text.inverse_sum = inverse_sums.data() + shape.frames * (normalize ? n : worker);
      const StatisticsMode mode = !normalize  ? StatisticsMode::kNone
                                  : with_rows ? StatisticsMode::kCompute
                                              : StatisticsMode::kReuse;
      run_vectorized<GatherEmissions<Storage>>(rows, shape.classes, blank, mode, n, int64_t(0),
                                               batch.frames[n], &scratch[worker], text);
      loss = compute_loss(text, workspaces[worker], false);
    } else if (with_rows) {
      on_rows(n, 0, shape.frames, worker);  // for the other texts of the sample
    }
    log_p[m] = Real(0 - loss);  // 0 instead of -0 for a certain text
  };
  partition.run(shape, on_rows, on_text);
}

Tensor log_probability_cpu(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                           const Tensor& target_lengths, int64_t blank, bool normalize, bool validate,
                           int64_t longest_target) {
  const BatchShape shape =
      check_batch(logits, targets, input_lengths, target_lengths, blank, longest_target, kOp);
  const Batch batch = read_batch(shape, targets, input_lengths, target_lengths, blank, validate, kOp);
  const Tensor result = new_tensor(logits, {shape.texts()}, compute_type(logits.scalar_type()));
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    compute<Storage>(shape, batch, logits, blank, normalize, static_cast<Real*>(result.mutable_data_ptr()));
  });
  return result;
}

}  // namespace
}  // namespace crnn::log_probability

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CPU, m) {
  m.impl("log_probability", TORCH_BOX(&crnn::log_probability::log_probability_cpu));
}
