// Greedy decoding on the CPU: takes the most probable class of each frame, merges repeats and drops blanks.
//
// The logits are read once. The argmax of a row is the lowest class with the row's maximum; its
// log-probability follows from the maximum and the sum of the softmax terms.
#include <cmath>
#include <memory>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"
#include "common/row_statistics.h"
#include "greedy/greedy.h"

namespace crnn::greedy {
namespace {

template <class Real>
struct BestClass {
  int32_t index;
  Real logp;
};

// The best class of each row and its log-probability. Ties go to the lowest class, and NaN is ignored. The
// best class of a row of -inf and NaN is 0. With `normalize`, the log-probability is NaN if the row contains
// NaN or +inf.
template <class Real>
struct FindBestClasses {
  // rows: (count) pointers to `classes` elements; count is at most rows_in_cache(classes); results: (count)
  template <int kBytes>
  static CRNN_INLINE void run(const Real* const* rows, int64_t count, int64_t classes, bool normalize,
                              BestClass<Real>* results) {
    if (classes > kShortRow) return run_long_row<kBytes>(*rows, classes, normalize, results);
    // One step at a time for all rows: steps of different rows do not depend on each other.
    Real row_max[kMaxRows] = {}, sum[kMaxRows] = {};
    for (int64_t r = 0; r < count; ++r) row_max[r] = max_or_zero_of_short_row<kBytes>(rows[r], classes);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t at = find_in_short_row<kBytes>(rows[r], classes, row_max[r]);
      results[r].index = at < classes ? int32_t(at) : 0;  // not found if all elements are -inf or NaN
    }
    if (normalize) {
      for (int64_t r = 0; r < count; ++r)
        sum[r] = softmax_sum_of_short_row<kBytes>(rows[r], classes, row_max[r]);
    }
    for (int64_t r = 0; r < count; ++r)
      results[r].logp =
          logp(rows[r][results[r].index], row_max[r], 1 / (sum[r] == 0 ? Real(1) : sum[r]), normalize);
  }

 private:
  template <int kBytes>
  static CRNN_INLINE void run_long_row(const Real* row, int64_t classes, bool normalize,
                                       BestClass<Real>* result) {
    int64_t best = 0;
    Real highest = -std::numeric_limits<Real>::infinity();
    OnlineSoftmax<Real> total;
    for (int64_t begin = 0; begin < classes; begin += kShortRow) {
      const Real* part = row + begin;
      const int64_t count = minimum(classes - begin, kShortRow);
      const Real row_max = max_or_zero_of_short_row<kBytes>(part, count);
      if (row_max > highest) {
        const int64_t at = find_in_short_row<kBytes>(part, count, row_max);
        if (at < count) {  // not found if all elements are -inf or NaN
          highest = row_max;
          best = begin + at;
        }
      }
      if (normalize) total.add(row_max, softmax_sum_of_short_row<kBytes>(part, count, row_max));
    }
    *result = {int32_t(best), logp(row[best], total.row_max(), total.inverse_sum(), normalize)};
  }

  static CRNN_INLINE Real logp(Real logit, Real row_max, Real inverse_sum, bool normalize) {
    return normalize ? (logit - row_max) + std::log(inverse_sum) : logit;
  }
};

auto greedy_decode_cpu(const Tensor& logits, const Tensor& input_lengths, int64_t blank, bool normalize) {
  const Shape shape = check_tensors(logits, input_lengths, blank);
  check_input_lengths(input_lengths, shape.frames, kOp);
  const IndexView length_of(input_lengths);
  const Result result(logits, shape);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    using Real = typename ComputeType<Storage>::Real;
    const TncView<const Storage> rows(logits.const_data_ptr(), logits);
    const DecodedView<Real> decoded = result.view<Real>();
    // Threads share the frames of all samples, so that one long sample keeps all of them busy.
    const int64_t chunk_frames = rows_per_chunk(shape.classes);
    const int64_t chunks_per_sample = ceil_div(shape.frames, chunk_frames);
    const int64_t workers = num_workers(shape.samples * chunks_per_sample, 1);
    std::vector<RowScratch<Real>> scratch(workers);
    const std::unique_ptr<BestClass<Real>[]> found(new BestClass<Real>[shape.samples * shape.frames]);
    parallel_for(shape.samples * chunks_per_sample, workers, [&](int64_t item, int64_t worker) {
      const int64_t n = item / chunks_per_sample, begin = item % chunks_per_sample * chunk_frames;
      const int64_t end = std::min(begin + chunk_frames, length_of(n));
      const int64_t max_rows = rows_in_cache(shape.classes);
      for (int64_t first = begin; first < end; first += max_rows) {
        const int64_t count = std::min(max_rows, end - first);
        const Real* contiguous[kMaxRows];
        for (int64_t r = 0; r < count; ++r)
          contiguous[r] = read_row(rows.row(first + r, n), rows.stride_c, shape.classes, [&] {
            return scratch[worker].classes(count * shape.classes) + r * shape.classes;
          });
        run_vectorized<FindBestClasses<Real>>(contiguous, count, int64_t(shape.classes), normalize,
                                              &found[n * shape.frames + first]);
      }
    });

    for (int64_t n = 0; n < shape.samples; ++n) {
      Segment prefix = Segment::empty();
      int32_t previous = int32_t(blank);
      for (int64_t t = 0; t < length_of(n); ++t) {
        const auto [best, logp] = found[n * shape.frames + t];
        prefix = merge(prefix, Segment::of_frame(t, is_token_boundary(best, previous, blank), logp));
        // Written at every frame of the token; the last write counts.
        if (best != blank) decoded.write_token(n, best, prefix, t + 1);
        previous = best;
      }
      for (int64_t i = prefix.tokens; i < shape.frames; ++i) decoded.write_padding(n, i);
      decoded.write_sample(n, prefix, length_of(n));
    }
  });
  return result.tuple();
}

}  // namespace
}  // namespace crnn::greedy

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CPU, m) {
  m.impl("greedy_decode", TORCH_BOX(&crnn::greedy::greedy_decode_cpu));
}
