// align on the CPU. For each text:
//
//   1. the statistics of its rows, once for all texts of the sample, and the logits of its labels and blank
//   2. the Viterbi recursion and the backtrace (viterbi.h), on unnormalized logits
//   3. tokens, spans and scores of the path
#include <cmath>

#include "align/align.h"
#include "align/viterbi.h"
#include "common/isa.h"
#include "common/row_statistics.h"
#include "targets/work_partition.h"

namespace crnn::align {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Aligns the texts of one batch.
template <class Storage>
class BatchAligner {
 public:
  using Real = typename ComputeType<Storage>::Real;

  BatchAligner(const BatchShape& shape, const Batch& batch, const Tensor& logits, int64_t blank,
               bool normalize, const AlignmentView<Real>& aligned)
      : shape_(shape),
        batch_(batch),
        rows_(logits.const_data_ptr(), logits),
        blank_(blank),
        normalize_(normalize),
        aligned_(aligned),
        row_max_(shape.frames * shape.samples),
        log_inverse_sum_(shape.frames * shape.samples) {}

  void run() {
    const WorkPartition partition(shape_);
    scratch_.resize(maximum(partition.workers, partition.row_workers));
    workspaces_.resize(partition.workers);
    partition.run(
        shape_,
        [&](int64_t n, int64_t begin, int64_t end, int64_t worker) {
          compute_normalizers(n, begin, minimum(end, batch_.frames[n]), worker);
        },
        [&](int64_t m, int64_t n, bool with_rows, int64_t worker) { align(m, n, with_rows, worker); });
  }

 private:
  void compute_normalizers(int64_t n, int64_t begin, int64_t end, int64_t worker) {
    if (!normalize_) return;
    const int64_t at = n * shape_.frames + begin;
    Real* log_inverse_sum = log_inverse_sum_.data() + at;
    run_vectorized<ComputeRowStatistics<Storage>>(rows_, shape_.classes, n, begin, end, &scratch_[worker],
                                                  row_max_.data() + at, log_inverse_sum);
    for (int64_t i = 0; i < end - begin; ++i) log_inverse_sum[i] = std::log(log_inverse_sum[i]);
  }

  // Aligns text m of sample n. with_rows: the statistics of the sample's rows are not computed yet.
  void align(int64_t m, int64_t n, bool with_rows, int64_t worker) {
    ViterbiWorkspace<Real>& work = workspaces_[worker];
    const int64_t frames = batch_.frames[n];
    const Text<Real> text =
        work.prepare(batch_.labels.data() + batch_.target_offsets[m], frames, batch_.length[m]);
    bool valid = true;
    // A few rows at a time, so that they are still in the L1 cache when their labels are gathered.
    const int64_t max_rows = rows_in_cache(shape_.classes);
    for (int64_t first = 0; first < frames; first += max_rows) {
      const int64_t end = minimum(first + max_rows, frames);
      if (with_rows) compute_normalizers(n, first, end, worker);
      for (int64_t t = first; t < end; ++t) valid &= gather(text, n, t);
    }

    bool found = false;
    if (valid && frames >= frames_needed(text.labels, text.length))
      run_vectorized<BestPath<Real>>(text, &work, &found);
    if (found) {
      write_path(text, work.path, m, n);
    } else {
      aligned_.scores[m] = Real(valid ? kImpossible : kNaN);
    }
    for (int64_t t = found ? frames : 0; t < shape_.frames; ++t) aligned_.write_padding_frame(m, t);
    for (int64_t i = found ? text.length : 0; i < aligned_.columns; ++i) aligned_.write_padding(m, i);
  }

  // Gathers the logits of frame t that the text needs. Returns false if the frame makes the score NaN.
  bool gather(const Text<Real>& text, int64_t n, int64_t t) const {
    const Storage* row = rows_.row(t, n);
    Real* to = text.label_logits + t * text.pitch;
    const Real blank = to_compute(row[blank_ * rows_.stride_c]);
    text.blank_logits[t] = blank;
    if constexpr (std::is_same_v<Storage, Real>) {
      gather_row(row, text.labels, text.length, to);
    } else {  // in batches, so that the conversions vectorize
      constexpr int64_t kBatch = 64;
      Storage gathered[kBatch];
      for (int64_t begin = 0; begin < text.length; begin += kBatch) {
        const int64_t count = std::min(kBatch, text.length - begin);
        gather_row(row, text.labels + begin, count, gathered);
        for (int64_t i = 0; i < count; ++i) to[begin + i] = to_compute(gathered[i]);
      }
    }
    std::fill(to + text.length, to + text.pitch, Real(kImpossible));
    if (normalize_) return log_inverse_sum_[n * shape_.frames + t] == log_inverse_sum_[n * shape_.frames + t];
    constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
    int invalid = !(blank < kInfinity);
    for (int64_t i = 0; i < text.length; ++i) invalid |= !(to[i] < kInfinity);
    return invalid == 0;
  }

  void gather_row(const Storage* row, const int32_t* labels, int64_t count, Storage* to) const {
    if (rows_.stride_c == 1) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < count; ++i) to[i] = row[labels[i]];
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = row[labels[i] * rows_.stride_c];
    }
  }

  void write_path(const Text<Real>& text, const int32_t* path, int64_t m, int64_t n) const {
    const Real *row_max = &row_max_[n * shape_.frames],
               *log_inverse_sum = &log_inverse_sum_[n * shape_.frames];
    double score = 0;
    Span span{0};
    for (int64_t t = 0; t < text.frames; ++t) {
      const int64_t label = path[t] / 2;
      const bool on_label = path[t] % 2 != 0;
      const Real logit = on_label ? text.label_logits[t * text.pitch + label] : text.blank_logits[t];
      const Real logp = (logit - row_max[t]) + log_inverse_sum[t];
      score += logp;
      aligned_.write_token(m, t, on_label ? text.labels[label] : blank_);
      if (!on_label) continue;
      if (t == 0 || path[t - 1] != path[t]) span = {t};
      span.add(t, logp);
      if (t + 1 == text.frames || path[t + 1] != path[t]) aligned_.write_span(m, label, span, t + 1);
    }
    aligned_.scores[m] = Real(score);
  }

  const BatchShape& shape_;
  const Batch& batch_;
  const TncView<const Storage> rows_;
  const int64_t blank_;
  const bool normalize_;
  const AlignmentView<Real>& aligned_;
  // log_softmax(row)[c] = (row[c] - row_max) + log_inverse_sum: (N, T) each, 0 without normalization.
  // log_inverse_sum is NaN if the row contains NaN or +inf.
  std::vector<Real> row_max_, log_inverse_sum_;
  std::vector<RowScratch<Real>> scratch_;
  std::vector<ViterbiWorkspace<Real>> workspaces_;
};

auto align_cpu(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
               const Tensor& target_lengths, int64_t blank, bool normalize, int64_t longest_target) {
  const BatchShape shape =
      check_batch(logits, targets, input_lengths, target_lengths, blank, longest_target, kOp);
  const Batch batch = read_batch(shape, targets, input_lengths, target_lengths, blank, true, kOp);
  const Result result(logits, shape);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    const auto aligned = result.view<typename ComputeType<Storage>::Real>();
    BatchAligner<Storage>(shape, batch, logits, blank, normalize, aligned).run();
  });
  return result.tuple();
}

}  // namespace
}  // namespace crnn::align

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CPU, m) {
  m.impl("align", TORCH_BOX(&crnn::align::align_cpu));
}
