// The beam_search operator on the CPU; threads share the samples.
#include <memory>

#include "beam_search/fusion_arguments.h"
#include "beam_search/search.h"
#include "common/parallel.h"

namespace crnn::beam_search {
namespace {

// Whether all numbers of a row are below a bound and none is NaN.
template <class Real>
struct AllBelow {
  template <int kBytes>
  static CRNN_INLINE void run(const Real* row, int64_t classes, Real bound, bool* result) {
    using Reals = Vector<Real, kBytes>;
    using Ints = ExponentOf<Reals>;
    if constexpr (kLanesOf<Reals> > 1) {
      if (classes < kLanesOf<Reals>) return run<narrower_bytes<Real>(kBytes)>(row, classes, bound, result);
    }
    Ints below = broadcast<Ints>(1);
    const auto compare = [&](int64_t i, int64_t = 0) CRNN_INLINE_LAMBDA {
      below = load<Reals>(row + i) < broadcast<Reals>(bound) ? below : broadcast<Ints>(0);
    };
    for_each_vector<kLanesOf<Reals>>(classes, compare, compare);
    *result = reduce_lanes<Minimum>(below) == 1;
  }
};

template <class Real>
struct ComputeRowStatistics {
  template <int kBytes>
  static CRNN_INLINE void run(const Real* const* rows, int64_t count, int64_t classes, Real* row_max,
                              Real* inverse_sum) {
    compute_row_statistics<kBytes>(rows, count, classes, row_max, inverse_sum);
  }
};

// Loads the frames of a sample and their statistics, several at a time.
template <class Storage>
class FrameReader {
 public:
  using Real = typename ComputeType<Storage>::Real;

  FrameReader(const TncView<const Storage>& logits, int64_t frames, int64_t classes, bool normalize)
      : logits_(logits), classes_(classes), max_log_prob_(max_log_prob(frames)), normalize_(normalize) {}

  // Calls process(row, row_max, inverse_sum) for the first `frames` frames of sample n. Stops and returns
  // false at a frame with NaN or +inf.
  template <class Process>
  bool for_each_frame(int64_t n, int64_t frames, const Process& process) {
    const int64_t max_rows = rows_in_cache(classes_);
    const Real* rows[kMaxRows];
    for (int64_t first = 0; first < frames; first += max_rows) {
      const int64_t count = std::min(max_rows, frames - first);
      for (int64_t r = 0; r < count; ++r)
        rows[r] = read_row(logits_.row(first + r, n), logits_.stride_c, classes_,
                           [&] { return scratch_.classes(count * classes_) + r * classes_; });
      Real row_max[kMaxRows], inverse_sum[kMaxRows];
      compute_statistics(rows, count, row_max, inverse_sum);
      for (int64_t r = 0; r < count; ++r) {
        if (std::isnan(inverse_sum[r])) return false;
        process(rows[r], row_max[r], inverse_sum[r]);
      }
    }
    return true;
  }

 private:
  void compute_statistics(const Real* const* rows, int64_t count, Real* row_max, Real* inverse_sum) {
    if (normalize_)
      return run_vectorized<ComputeRowStatistics<Real>>(rows, count, classes_, row_max, inverse_sum);
    for (int64_t r = 0; r < count; ++r) {
      bool usable = false;
      run_vectorized<AllBelow<Real>>(rows[r], classes_, max_log_prob_, &usable);
      row_max[r] = 0;
      inverse_sum[r] = usable ? Real(1) : std::numeric_limits<Real>::quiet_NaN();
    }
  }

  const TncView<const Storage> logits_;
  const int64_t classes_;
  const Real max_log_prob_;
  const bool normalize_;
  RowScratch<Real> scratch_;
};

template <class Storage, class Fusion>
void decode(const Tensor& logits, const IndexView& length_of, const Shape& shape, const Options& options,
            const Fusion& fusion, const Result& result) {
  using Real = typename ComputeType<Storage>::Real;
  using HostSearch = Search<Real, Fusion>;
  struct Worker {
    HostSearch search;
    FrameReader<Storage> reader;
    std::vector<typename HostSearch::Hypothesis> hypotheses;
  };
  const TncView<const Storage> rows(logits.const_data_ptr(), logits);
  auto* tokens = data<int64_t>(result.tokens);
  auto* lengths = data<int64_t>(result.lengths);
  auto* scores = data<Real>(result.scores);
  auto* log_probs = data<Real>(result.log_probs);
  const int64_t workers = num_workers(shape.samples, 1);
  std::vector<std::unique_ptr<Worker>> all(workers);

  parallel_for(shape.samples, workers, [&](int64_t n, int64_t worker_index) {
    std::unique_ptr<Worker>& worker = all[worker_index];
    if (!worker)
      worker.reset(new Worker{HostSearch(options, fusion),
                              FrameReader<Storage>(rows, shape.frames, shape.classes, options.normalize),
                              {}});
    HostSearch& search = worker->search;
    search.start(n);
    const bool usable =
        worker->reader.for_each_frame(n, length_of(n), [&](const Real* row, Real row_max, Real inverse_sum) {
          search.process_frame(row, shape.classes, row_max, inverse_sum);
        });
    worker->hypotheses.clear();
    if (usable) search.finish(&worker->hypotheses);
    for (int64_t k = 0; k < options.nbest; ++k) {
      const int64_t at = n * options.nbest + k;
      const bool found = k < int64_t(worker->hypotheses.size());
      int64_t* text = tokens + at * shape.frames;
      const int64_t length = found ? worker->hypotheses[k].length : -1;
      const Real missing =
          usable ? -std::numeric_limits<Real>::infinity() : std::numeric_limits<Real>::quiet_NaN();
      lengths[at] = length;
      scores[at] = found ? Real(worker->hypotheses[k].score) : missing;
      log_probs[at] = found ? Real(worker->hypotheses[k].log_prob) : missing;
      if (found) search.write_tokens(worker->hypotheses[k], text);
      std::fill(text + maximum<int64_t>(length, 0), text + shape.frames, -1);
    }
  });
}

auto beam_search_cpu(const Tensor& logits, const Tensor& input_lengths, int64_t blank, bool normalize,
                     int64_t beam_size, int64_t nbest, int64_t token_top_k, double token_min_logp,
                     double beam_threshold, Tensors lm, int64_t lm_start, bool lm_over_words,
                     double lm_weight, Tensors lexicon, int64_t words, double word_score, Tensors hotwords,
                     double hotword_weight, double token_score, double max_log_prob_step) {
  const Options options{beam_size, nbest, blank, normalize, token_top_k, token_min_logp, beam_threshold};
  const Shape shape = check_tensors(logits, input_lengths, options);
  check_input_lengths(input_lengths, shape.frames, kOp);
  const FusionArguments arguments{lm,         lm_start, lm_over_words,  lm_weight,   lexicon,          words,
                                  word_score, hotwords, hotword_weight, token_score, max_log_prob_step};
  const Result result(logits, shape, nbest);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    const IndexView length_of(input_lengths);
    if (arguments.enabled()) {
      decode<Storage>(logits, length_of, shape, options, arguments.fusion(logits), result);
    } else {
      decode<Storage>(logits, length_of, shape, options, NoFusion{}, result);
    }
  });
  return result.tuple();
}

}  // namespace
}  // namespace crnn::beam_search

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CPU, m) {
  m.impl("beam_search", TORCH_BOX(&crnn::beam_search::beam_search_cpu));
}
