// ctc_loss on the CPU: two reads and one write of the (T, N, C) tensor.
//
//   forward    1. each row (t, n): its statistics, and the logits of blank and of the target's labels
//              2. each sample: the recursion, which turns those logits into occupancies
//   backward   3. each row: softmax - occupancy, times the incoming gradient
//
// Rows and samples are shared among threads; none of them adds to what another one wrote, so that the result
// is the same for any number of threads.
#include <vector>

#include "common/check.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "ctc_loss/ctc_loss.h"
#include "ctc_loss/recursion.h"

namespace crnn::ctc_loss {
namespace {

constexpr const char* kOp = "ctc_loss";

// The targets and lengths of a batch, read once.
struct Batch {
  std::vector<int32_t> labels;       // concatenated, as in targets (with the padding of padded ones)
  std::vector<int64_t> first_label;  // (N): index into labels
  std::vector<int64_t> length;       // (N)
  std::vector<int64_t> frames;       // (N)
  std::vector<char> valid;           // (N): 0 where a length or a label breaks the rules

  bool is_live(int64_t t, int64_t n) const { return t < frames[n]; }
};

// Reads lengths and labels. What breaks the rules is an error with `validate`; otherwise it makes that sample
// invalid: all its frames count as live and none of its labels is looked at.
Batch read_batch(const Shape& shape, const Tensor& targets, const Tensor& input_lengths,
                 const Tensor& target_lengths, int64_t blank, bool validate) {
  Batch batch;
  batch.labels.resize(shape.labels);
  batch.first_label.resize(shape.samples);
  batch.length.resize(shape.samples);
  batch.frames.resize(shape.samples);
  batch.valid.resize(shape.samples);
  const IndexView target(targets), input_length(input_lengths), target_length(target_lengths);

  int64_t next_label = 0;
  for (int64_t n = 0; n < shape.samples; ++n) {
    const int64_t frames = input_length(n), length = target_length(n);
    const int64_t first = shape.padded ? n * shape.max_length : next_label;
    const int64_t available = shape.padded ? shape.max_length : shape.labels - first;
    const bool frames_fit = frames >= 0 && frames <= shape.frames;
    const bool length_fits = length >= 0 && length <= available;
    if (validate) {
      check(frames_fit, kOp, "input_lengths[", n, "] is ", frames, ", but logits has T=", shape.frames,
            " frames");
      check(length >= 0, kOp, "target_lengths[", n, "] is ", length, ", but a length cannot be negative");
      check(length_fits || !shape.padded, kOp, "target_lengths[", n, "] is ", length,
            ", but targets has S=", shape.max_length, " columns");
      check(length_fits, kOp, "target_lengths[", n, "] is ", length, ", but concatenated targets has only ",
            available, " labels left of ", shape.labels);
    }
    bool valid = frames_fit && length_fits;
    next_label = first + (length_fits ? length : 0);
    for (int64_t i = 0; valid && i < length; ++i) {
      const int64_t label = shape.padded ? target(n, i) : target(first + i);
      const bool label_fits = label >= 0 && label < shape.classes && label != blank;
      if (validate && !label_fits) {
        std::ostringstream element;
        shape.padded ? element << "targets[" << n << ", " << i << "]"
                     : element << "targets[" << first + i << "]";
        check(label != blank, kOp, element.str(), " is ", label, ", which is the blank");
        fail(kOp, element.str(), " is ", label, ", but logits has C=", shape.classes, " classes");
      }
      valid = label_fits;
      batch.labels[first + i] = int32_t(label);
    }
    batch.first_label[n] = first;
    batch.length[n] = valid ? length : 0;
    batch.frames[n] = valid ? frames : shape.frames;
    batch.valid[n] = valid;
  }
  check(!validate || shape.padded || next_label == shape.labels, kOp, "target_lengths adds up to ",
        next_label, ", but concatenated targets has ", shape.labels, " labels");
  return batch;
}

// A (T, N, C) tensor of one storage type.
template <class Storage>
struct Rows {
  Storage* data;
  int64_t stride_t, stride_n, stride_c;

  Rows(const void* pointer, const Tensor& tensor)
      : data(static_cast<Storage*>(const_cast<void*>(pointer))),
        stride_t(tensor.stride(0)),
        stride_n(tensor.stride(1)),
        stride_c(tensor.stride(2)) {}

  CRNN_INLINE Storage* row(int64_t t, int64_t n) const { return data + t * stride_t + n * stride_n; }
};

// Log-probabilities that are taken as they are may be positive. Above this bound the exponents of a path
// could leave their integer, so such a number counts as +inf does.
constexpr double largest_log_prob(int64_t frames) {
  return double(1 << 28) / double(frames);
}

// 1. Rows [begin, end) of the T*N rows.
template <class Storage>
struct GatherRows {
  using Real = typename ComputeType<Storage>::Real;

  static CRNN_INLINE void run(const Shape& shape, const Batch& batch, const Rows<const Storage>& logits,
                              int64_t blank, bool normalize, const Saved<Real>& saved, Real* blank_logits,
                              Real* scratch, int64_t begin, int64_t end) {
    const Real largest =
        normalize ? std::numeric_limits<Real>::infinity() : Real(largest_log_prob(shape.frames));
    for (int64_t index = begin; index < end; ++index) {
      const int64_t t = index / shape.samples, n = index % shape.samples;
      if (!batch.valid[n] || !batch.is_live(t, n)) continue;
      const Storage* source = logits.row(t, n);
      const int64_t length = batch.length[n];
      const int32_t* labels = batch.labels.data() + batch.first_label[n];
      Real* posterior = saved.posterior + shape.frames * batch.first_label[n] + t * length;
      const int64_t at = n * shape.frames + t;

      RowStatistics<Real> statistics{Real(0), Real(1)};
      if (normalize) {
        const Real* row = read_row(source, logits.stride_c, shape.classes, scratch);
        statistics = row_statistics(row, shape.classes);
      }
      blank_logits[at] = to_compute(source[blank * logits.stride_c]);
      bool bad = !(blank_logits[at] < largest);
      for (int64_t i = 0; i < length; ++i) {
        posterior[i] = to_compute(source[labels[i] * logits.stride_c]);
        bad |= !(posterior[i] < largest);
      }
      saved.peak[at] = statistics.peak;
      saved.inverse_sum[at] = bad ? std::numeric_limits<Real>::quiet_NaN() : statistics.inverse_sum;
    }
  }
};

// 2. One sample; returns its loss and leaves its occupancies in `saved`.
template <class Real>
double sample_loss(const Shape& shape, const Batch& batch, int64_t n, bool zero_infinity, bool with_grad,
                   const Saved<Real>& saved, const Real* blank_logits, RecursionWorkspace<Real>& workspace) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const int64_t frames = batch.frames[n], first_row = n * shape.frames;
  const Sample<Real> sample{frames,
                            batch.length[n],
                            batch.labels.data() + batch.first_label[n],
                            saved.peak + first_row,
                            saved.inverse_sum + first_row,
                            blank_logits + first_row,
                            saved.posterior + shape.frames * batch.first_label[n]};
  // What no live frame fills is zero, so that equal inputs give equal tensors, bit for bit.
  const int64_t written = batch.valid[n] ? frames : 0;
  std::fill(saved.peak + first_row + written, saved.peak + first_row + shape.frames, Real(0));
  std::fill(saved.inverse_sum + first_row + written, saved.inverse_sum + first_row + shape.frames, Real(0));
  if (shape.padded)
    std::fill(sample.posterior + written * sample.target_length,
              sample.posterior + shape.frames * shape.max_length, Real(0));

  bool is_number = batch.valid[n];
  for (int64_t t = 0; is_number && t < frames; ++t)
    is_number = sample.inverse_sum[t] == sample.inverse_sum[t];

  double loss = std::numeric_limits<double>::quiet_NaN();
  if (is_number && frames < frames_needed(sample.labels, sample.target_length)) {
    loss = kInfinity;
  } else if (is_number && frames == 0) {
    loss = 0;
  } else if (is_number) {
    run_vectorised<Recursion<Real>>(sample, &workspace, with_grad, &loss);
  }

  const bool no_gradient = loss == kInfinity && zero_infinity;
  if (no_gradient) loss = 0;
  if (!(loss < kInfinity) || no_gradient) {
    const Real mark =
        no_gradient ? std::numeric_limits<Real>::infinity() : std::numeric_limits<Real>::quiet_NaN();
    std::fill_n(saved.peak + first_row, frames, mark);
  }
  return loss;
}

// The weight of a sample's loss in the result.
double weight(const Shape& shape, const Batch& batch, int64_t n, Reduction reduction) {
  if (reduction != Reduction::kMean) return 1;
  return 1 / (double(std::max<int64_t>(batch.length[n], 1)) * double(shape.samples));
}

// Rows that make a piece of work: few enough to share out, many enough to be worth it.
int64_t rows_per_item(const Shape& shape) {
  return std::max<int64_t>(1, 16384 / (shape.classes + 64));
}

template <class Work>
void parallel_over_rows(const Shape& shape, const Work& work) {
  const int64_t rows = shape.frames * shape.samples, piece = rows_per_item(shape);
  parallel_over((rows + piece - 1) / piece, 1, [&](int64_t item, int64_t worker) {
    work(item * piece, std::min(rows, (item + 1) * piece), worker);
  });
}

// Scratch rows, one a worker, for logits that are not contiguous rows of the computing type.
template <class Real>
class ScratchRows {
 public:
  explicit ScratchRows(const Shape& shape)
      : classes_(shape.classes), data_(new Real[classes_ * torch::stable::get_num_threads()]) {}
  Real* of(int64_t worker) const { return data_.get() + worker * classes_; }

 private:
  int64_t classes_;
  std::unique_ptr<Real[]> data_;
};

template <class Storage>
double forward(const Shape& shape, const Batch& batch, const Tensor& logits, int64_t blank,
               Reduction reduction, bool zero_infinity, bool normalize, bool with_grad, void* saved_data,
               void* sample_losses) {
  using Real = typename ComputeType<Storage>::Real;
  const Rows<const Storage> rows(logits.const_data_ptr(), logits);
  const Saved<Real> saved(saved_data, shape);
  const std::unique_ptr<Real[]> blank_logits(new Real[shape.frames * shape.samples]);
  const ScratchRows<Real> scratch(shape);
  parallel_over_rows(shape, [&](int64_t begin, int64_t end, int64_t worker) {
    run_vectorised<GatherRows<Storage>>(shape, batch, rows, blank, normalize, saved, blank_logits.get(),
                                        scratch.of(worker), begin, end);
  });

  // A thread is worth waking for about a thousand steps of a block of labels.
  const int64_t steps = shape.frames * (1 + (shape.labels / std::max<int64_t>(1, shape.samples)) / kLanes);
  const int64_t grain = std::max<int64_t>(1, 512 / std::max<int64_t>(1, steps));
  std::vector<RecursionWorkspace<Real>> workspaces(max_workers(shape.samples, grain));
  std::vector<double> losses(shape.samples);
  parallel_over(shape.samples, grain, [&](int64_t n, int64_t worker) {
    losses[n] =
        sample_loss(shape, batch, n, zero_infinity, with_grad, saved, blank_logits.get(), workspaces[worker]);
  });

  double total =
      reduction == Reduction::kMean && shape.samples == 0 ? std::numeric_limits<double>::quiet_NaN() : 0.0;
  for (int64_t n = 0; n < shape.samples; ++n) {
    if (reduction == Reduction::kNone) static_cast<Real*>(sample_losses)[n] = Real(losses[n]);
    total += losses[n] * weight(shape, batch, n, reduction);
  }
  return total;
}

std::tuple<Tensor, Tensor> ctc_loss_cpu(const Tensor& logits, const Tensor& targets,
                                        const Tensor& input_lengths, const Tensor& target_lengths,
                                        int64_t blank, int64_t reduction_code, bool zero_infinity,
                                        bool normalize, bool validate, bool with_grad) {
  const Shape shape = check_tensors(logits, targets, input_lengths, target_lengths, blank, reduction_code);
  const Reduction reduction = Reduction(reduction_code);
  const Batch batch = read_batch(shape, targets, input_lengths, target_lengths, blank, validate);
  const ScalarType type = compute_type(logits.scalar_type());
  const bool reduced = reduction != Reduction::kNone;
  Tensor loss = reduced ? new_tensor(logits, {}, type) : new_tensor(logits, {shape.samples}, type);
  Tensor saved = new_tensor(logits, {saved_elements(shape)}, type);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    const double total = forward<Storage>(shape, batch, logits, blank, reduction, zero_infinity, normalize,
                                          with_grad, saved.mutable_data_ptr(), loss.mutable_data_ptr());
    using Real = typename ComputeType<Storage>::Real;
    if (reduced) *static_cast<Real*>(loss.mutable_data_ptr()) = Real(total);
  });
  if (!with_grad) saved = new_tensor(logits, {0}, type);
  return {loss, saved};
}

// What the labels leave of a frame. log_odds: the blank's logit above the row's peak. A blank that is masked
// by a large negative number is on a path only where the lattice forces it; what rounding leaves there is not
// a share.
template <class Real>
CRNN_INLINE Real blank_occupancy(const Real* occupancy, int64_t length, Real log_odds) {
  constexpr Real kMasked = -1000;
  constexpr Real kRounding = 1000 * std::numeric_limits<Real>::epsilon();
  const Real rest = 1 - sum(occupancy, length);
  return rest < (log_odds < kMasked ? kRounding : Real(0)) ? Real(0) : rest;
}

// 3. Rows [begin, end) of the T*N rows.
template <class Storage>
struct GradientRows {
  using Real = typename ComputeType<Storage>::Real;

  static CRNN_INLINE void run(const Shape& shape, const Batch& batch, const Rows<const Storage>& logits,
                              const Rows<Storage>& gradient, int64_t blank, bool normalize,
                              const Saved<Real>& saved, const Real* scale, Real* scratch, int64_t begin,
                              int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t t = index / shape.samples, n = index % shape.samples;
      const int64_t at = n * shape.frames + t;
      Storage* target_row = gradient.row(t, n);
      Real* row = row_to_fill(target_row, gradient.stride_c, scratch);
      const Real peak = batch.is_live(t, n) ? saved.peak[at] : std::numeric_limits<Real>::infinity();
      if (peak == std::numeric_limits<Real>::infinity()) {
        for (int64_t c = 0; c < shape.classes; ++c) row[c] = 0;
      } else if (peak != peak) {
        for (int64_t c = 0; c < shape.classes; ++c) row[c] = peak;
      } else {
        const int64_t length = batch.length[n];
        const Real* occupancy = saved.posterior + shape.frames * batch.first_label[n] + t * length;
        const int32_t* labels = batch.labels.data() + batch.first_label[n];
        const Real blank_logit = to_compute(logits.row(t, n)[blank * logits.stride_c]);
        if (normalize) {
          const Real* source = read_row(logits.row(t, n), logits.stride_c, shape.classes, scratch);
          scaled_softmax(source, shape.classes, peak, saved.inverse_sum[at] * scale[n], row);
        } else {
          for (int64_t c = 0; c < shape.classes; ++c) row[c] = 0;
        }
        row[blank] -= scale[n] * blank_occupancy(occupancy, length, blank_logit - peak);
        for (int64_t i = 0; i < length; ++i) row[labels[i]] -= scale[n] * occupancy[i];
      }
      write_row(row, shape.classes, target_row, gradient.stride_c);
    }
  }
};

Tensor ctc_loss_backward_cpu(const Tensor& grad_loss, const Tensor& logits, const Tensor& targets,
                             const Tensor& input_lengths, const Tensor& target_lengths,
                             const Tensor& saved_tensor, int64_t blank, int64_t reduction_code,
                             bool normalize) {
  const Shape shape = check_tensors(logits, targets, input_lengths, target_lengths, blank, reduction_code);
  const Reduction reduction = Reduction(reduction_code);
  const ScalarType type = compute_type(logits.scalar_type());
  check(saved_tensor.scalar_type() == type && saved_tensor.numel() == saved_elements(shape), kOp,
        "saved must be what the forward pass returned with_grad");
  check(grad_loss.scalar_type() == type &&
            grad_loss.numel() == (reduction == Reduction::kNone ? shape.samples : 1),
        kOp, "grad_loss must have the dtype and shape of the loss");
  const Batch batch = read_batch(shape, targets, input_lengths, target_lengths, blank, false);
  Tensor gradient = torch::stable::empty_like(logits);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    const Saved<Real> saved(const_cast<void*>(saved_tensor.const_data_ptr()), shape);
    const Real* incoming = static_cast<const Real*>(grad_loss.const_data_ptr());
    const int64_t stride = reduction == Reduction::kNone ? grad_loss.stride(0) : 0;
    std::vector<Real> scale(shape.samples);
    for (int64_t n = 0; n < shape.samples; ++n)
      scale[n] = Real(double(incoming[n * stride]) * weight(shape, batch, n, reduction));

    const Rows<const Storage> logit_rows(logits.const_data_ptr(), logits);
    const Rows<Storage> gradient_rows(gradient.mutable_data_ptr(), gradient);
    const ScratchRows<Real> scratch(shape);
    parallel_over_rows(shape, [&](int64_t begin, int64_t end, int64_t worker) {
      run_vectorised<GradientRows<Storage>>(shape, batch, logit_rows, gradient_rows, blank, normalize, saved,
                                            scale.data(), scratch.of(worker), begin, end);
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
