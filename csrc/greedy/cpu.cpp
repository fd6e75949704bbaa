// Greedy decoding on the CPU: the most probable class of each frame, repeats merged, blanks left out.
//
// One read of the logits. A row's argmax is the lowest class that holds its peak; its log-probability follows
// from the row's statistics.
#include <cmath>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "greedy/greedy.h"

namespace crnn::greedy {
namespace {

template <class Real>
struct Best {
  int32_t best;
  Real logp;
};

// The best class of a row and its log-probability. NaN is passed over, and class 0 is the best of a row of
// nothing but -inf and NaN; with `normalize` the log-probability is NaN if the row holds NaN or +inf.
template <class Real>
struct BestClass {
  template <int kBytes>
  static CRNN_INLINE void run(const Real* row, int64_t classes, bool normalize, Best<Real>* result) {
    result->best = int32_t(argmax_of_row<kBytes>(row, classes));
    result->logp = row[result->best];
    if (!normalize) return;
    Real peak, inverse_sum;
    statistics_of_long_row<kBytes>(row, classes, &peak, &inverse_sum);
    result->logp = (result->logp - peak) + std::log(inverse_sum);
  }
};

void check_lengths(const IndexView& length_of, const Shape& shape) {
  for (int64_t n = 0; n < shape.samples; ++n)
    check(is_possible_length(length_of(n), shape.frames), kOp, "input_lengths[", n, "] is ", length_of(n),
          ", but logits has T=", shape.frames, " frames");
}

auto greedy_decode_cpu(const Tensor& logits, const Tensor& input_lengths, int64_t blank, bool normalize) {
  const Shape shape = check_tensors(logits, input_lengths, blank);
  const IndexView length_of(input_lengths);
  check_lengths(length_of, shape);
  const Result result(logits, shape);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    const Rows<const Storage> rows(logits.const_data_ptr(), logits);
    const Decoded<Real> decoded = result.decoded<Real>();
    std::vector<Real> scratch(shape.classes * max_workers(shape.samples, 1));
    parallel_over(shape.samples, 1, [&](int64_t n, int64_t worker) {
      Stretch read = Stretch::empty();
      int32_t previous = int32_t(blank);
      for (int64_t t = 0; t < length_of(n); ++t) {
        const Real* row = read_row(rows.row(t, n), rows.stride_c, shape.classes,
                                   [&] { return scratch.data() + worker * shape.classes; });
        Best<Real> found;
        run_vectorised<BestClass<Real>>(row, int64_t(shape.classes), normalize, &found);
        const auto [best, logp] = found;
        read = joined(read, Stretch::of_frame(t, at_edge_of_token(best, previous, blank), logp));
        // At each frame of the token: what its last one puts stays.
        if (best != blank) decoded.put_token(n, best, read, t + 1);
        previous = best;
      }
      for (int64_t i = read.tokens; i < shape.frames; ++i) decoded.put_padding(n, i);
      decoded.put_sample(n, read, length_of(n));
    });
  });
  return result.tuple();
}

}  // namespace
}  // namespace crnn::greedy

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CPU, m) {
  m.impl("greedy_decode", TORCH_BOX(&crnn::greedy::greedy_decode_cpu));
}
