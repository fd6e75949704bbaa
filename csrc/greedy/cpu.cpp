// Greedy decoding on the CPU: the most probable class of each frame, repeats merged, blanks left out.
//
// One read of the logits. A row's argmax is the lowest class that holds its peak; its log-probability follows
// from the row's statistics.
#include <cmath>
#include <vector>

#include "common/check.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/stable.h"

namespace crnn::greedy {
namespace {

constexpr const char* kOp = "greedy_decode";

template <class Real>
struct Statistics {
  template <int kBytes>
  static CRNN_INLINE void run(const Real* row, int64_t classes, Real* peak, Real* inverse_sum) {
    statistics_of_long_row<kBytes>(row, classes, peak, inverse_sum);
  }
};

// The best class of a row and its log-probability: NaN if the row holds NaN or +inf.
template <class Storage, class Real>
std::pair<int64_t, Real> best_class(const Storage* source, int64_t stride, int64_t classes, bool normalize,
                                    Real* scratch) {
  const Real* row = read_row(source, stride, classes, [&] { return scratch; });
  int64_t best = 0;
  for (int64_t c = 1; c < classes; ++c)
    if (row[c] > row[best]) best = c;
  if (!normalize) return {best, row[best]};
  Real peak = 0, inverse_sum = 0;
  run_vectorised<Statistics<Real>>(row, classes, &peak, &inverse_sum);
  return {best, (row[best] - peak) + std::log(inverse_sum)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> greedy_decode_cpu(const Tensor& logits,
                                                                             const Tensor& input_lengths,
                                                                             int64_t blank, bool normalize) {
  check(logits.dim() == 3, kOp, "logits must be (T, N, C), and it has ", logits.dim(), " dimensions");
  const int64_t frames = logits.size(0), samples = logits.size(1), classes = logits.size(2);
  check(classes > 0 && blank >= 0 && blank < classes, kOp, "blank must be in [0, ", classes, "), and it is ",
        blank);
  check(is_index_type(input_lengths.scalar_type()) && input_lengths.dim() == 1 &&
            input_lengths.size(0) == samples,
        kOp, "input_lengths must be int32 or int64 of shape (N=", samples, ",)");
  const IndexView length_of(input_lengths);
  for (int64_t n = 0; n < samples; ++n)
    check(length_of(n) >= 0 && length_of(n) <= frames, kOp, "input_lengths[", n, "] is ", length_of(n),
          ", but logits has T=", frames, " frames");

  const ScalarType type = compute_type(logits.scalar_type());
  Tensor tokens = new_tensor(logits, {samples, frames}, ScalarType::Long);
  Tensor lengths = new_tensor(logits, {samples}, ScalarType::Long);
  Tensor scores = new_tensor(logits, {samples}, type);
  Tensor starts = new_tensor(logits, {samples, frames}, ScalarType::Long);
  Tensor ends = new_tensor(logits, {samples, frames}, ScalarType::Long);
  Tensor token_logp = new_tensor(logits, {samples, frames}, type);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    const Storage* data = static_cast<const Storage*>(logits.const_data_ptr());
    std::vector<Real> scratch(classes * torch::stable::get_num_threads());
    auto* token = static_cast<int64_t*>(tokens.mutable_data_ptr());
    auto* start = static_cast<int64_t*>(starts.mutable_data_ptr());
    auto* end = static_cast<int64_t*>(ends.mutable_data_ptr());
    auto* length = static_cast<int64_t*>(lengths.mutable_data_ptr());
    auto* logp = static_cast<Real*>(token_logp.mutable_data_ptr());
    auto* score = static_cast<Real*>(scores.mutable_data_ptr());
    parallel_over(samples, 1, [&](int64_t n, int64_t worker) {
      const int64_t first = n * frames;
      std::fill_n(token + first, frames, -1);
      std::fill_n(start + first, frames, -1);
      std::fill_n(end + first, frames, -1);
      std::fill_n(logp + first, frames, Real(0));
      double total = 0, span = 0;
      int64_t previous = blank, at = first - 1;
      for (int64_t t = 0; t < length_of(n); ++t) {
        const auto [best, value] =
            best_class<Storage, Real>(data + t * logits.stride(0) + n * logits.stride(1), logits.stride(2),
                                      classes, normalize, scratch.data() + worker * classes);
        total += value;
        if (best != blank) {
          if (best != previous) {
            token[++at] = best;
            start[at] = t;
            span = 0;
          }
          span += value;
          end[at] = t + 1;
          logp[at] = Real(span / double(end[at] - start[at]));
        }
        previous = best;
      }
      length[n] = at + 1 - first;
      score[n] = Real(total);
    });
  });
  return {tokens, lengths, scores, starts, ends, token_logp};
}

}  // namespace
}  // namespace crnn::greedy

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "greedy_decode(Tensor logits, Tensor input_lengths, int blank, bool normalize) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CPU, m) {
  m.impl("greedy_decode", TORCH_BOX(&crnn::greedy::greedy_decode_cpu));
}
