// The align operator: the best path of each text.
#include "align/kernels.cuh"
#include "drivers/text_problems.h"

namespace {

namespace align = crnn::align;
using driver::DeviceTensor;
using driver::expect_close;
using driver::kInfinity;
using driver::kNaN;
using driver::TextProblem;
using reference::Table;

constexpr crnn::gpu::Stream kStream = {nullptr, "align"};

struct Expected {
  std::vector<int64_t> tokens, starts, ends;
  std::vector<double> scores, token_logp, peak_logp;
  std::vector<Table> log_probs;  // of each text's sample
};

template <class Storage>
Expected reference_alignment(const TextProblem& problem, const std::vector<Storage>& logits,
                             int64_t columns) {
  Expected expected;
  const crnn::BatchShape shape = problem.shape();
  for (int64_t m = 0; m < shape.texts(); ++m) {
    const int64_t n = m / shape.texts_per_sample;
    const Table rows = problem.valid_lengths()[m] ? rows_of(problem, logits, n) : Table();
    const Table log_probs = log_probs_of(problem, rows);
    const size_t frames_before = expected.tokens.size(), columns_before = expected.starts.size();
    expected.log_probs.push_back(log_probs);
    double score = kNaN;
    if (is_well_defined(problem, rows, size_t(m))) {
      const std::vector<int64_t> labels = problem.labels_of(size_t(m));
      const std::vector<int> path = reference::best_path(rows, labels, problem.blank);
      score = path.empty() && !(rows.empty() && labels.empty()) ? -kInfinity : 0;
      for (size_t t = 0; t < path.size(); ++t) {
        const bool on_label = path[t] % 2 == 1;
        const int64_t token = on_label ? labels[path[t] / 2] : problem.blank;
        const double logp = log_probs[t][token];
        expected.tokens.push_back(token);
        score += logp;
        if (!on_label) continue;
        if (t == 0 || path[t - 1] != path[t]) {
          expected.starts.push_back(int64_t(t));
          expected.ends.push_back(0);
          expected.token_logp.push_back(0);
          expected.peak_logp.push_back(-kInfinity);
        }
        expected.ends.back() = int64_t(t) + 1;
        expected.token_logp.back() += logp;
        expected.peak_logp.back() = std::max(expected.peak_logp.back(), logp);
      }
      for (size_t i = columns_before; i < expected.starts.size(); ++i)
        expected.token_logp[i] /= double(expected.ends[i] - expected.starts[i]);
    }
    expected.scores.push_back(score);
    expected.tokens.resize(frames_before + problem.frames, -1);
    expected.starts.resize(columns_before + columns, -1);
    expected.ends.resize(columns_before + columns, -1);
    expected.token_logp.resize(columns_before + columns, 0);
    expected.peak_logp.resize(columns_before + columns, 0);
  }
  return expected;
}

template <class Storage>
class Run {
 public:
  using Real = typename crnn::ComputeType<Storage>::Real;

  explicit Run(const TextProblem& problem)
      : problem_(problem),
        shape_(problem.shape()),
        columns_(shape_.padded ? shape_.padded_length : shape_.max_labels()),
        logits_(problem.logits<Storage>()),
        expected_(reference_alignment(problem, logits_, columns_)) {}

  void operator()() {
    for (const crnn::BatchShape& slice : driver::test_slices(shape_)) run(slice);
  }

 private:
  void run(const crnn::BatchShape& slice) {
    const int64_t frames = shape_.frames, texts = shape_.texts(), pairs = align::pair_elements(slice);
    const driver::StridedLayout placement(problem_.layout, frames, shape_.samples, shape_.classes);
    const DeviceTensor<Storage> logits = placement.tensor(logits_, driver::from_double<Storage>(kNaN));
    const driver::DeviceTexts device_texts(problem_, kStream);
    const DeviceTensor<Real> picked({frames * pairs}), row_max({slice.samples, frames}),
        log_inverse_sum({slice.samples, frames});
    const DeviceTensor<align::Word> moves({align::num_words(frames) * pairs});
    const DeviceTensor<align::ScorePair<double>> states({align::state_elements(slice)});
    const DeviceTensor<int32_t> path({slice.texts(), frames});
    const DeviceTensor<int64_t> tokens({texts, frames}), starts({texts, columns_}), ends({texts, columns_}),
        peaks({texts, columns_});
    const DeviceTensor<Real> scores({texts}), token_logp({texts, columns_});

    align::launch_align<Storage, Real>(
        crnn::TncView<const Storage>(logits.data(), logits), device_texts.batch(), problem_.normalize, slice,
        {picked.data(), row_max.data(), log_inverse_sum.data(), moves.data(), states.data(), path.data()},
        {tokens.data(), scores.data(), starts.data(), ends.data(), peaks.data(), token_logp.data(), frames,
         columns_},
        kStream);

    const double tolerance = sizeof(Real) == 4 ? 1e-5 : 1e-12;
    expect_close("tokens", tokens, expected_.tokens);
    expect_close("scores", scores, expected_.scores, tolerance);
    expect_close("starts", starts, expected_.starts);
    expect_close("ends", ends, expected_.ends);
    expect_close("token_logp", token_logp, expected_.token_logp, tolerance);
    expect_peaks(peaks, tolerance);
    determinism_.expect_bitwise_equal("tokens", tokens);
    determinism_.expect_bitwise_equal("scores", scores);
    determinism_.expect_bitwise_equal("peaks", peaks);
    determinism_.expect_bitwise_equal("token_logp", token_logp);
  }

  // Rounding decides between equal frames, so compare the log-probability at the peak.
  void expect_peaks(const DeviceTensor<int64_t>& peaks, double tolerance) const {
    const std::vector<int64_t> values = peaks.to_host();
    for (size_t at = 0; at < values.size(); ++at) {
      const int64_t peak = values[at], start = expected_.starts[at], end = expected_.ends[at];
      const size_t m = at / size_t(columns_);
      bool right = start <= peak && peak < std::max<int64_t>(end, 0);
      if (start < 0) {
        right = peak == -1;
      } else if (right) {
        const int64_t label = problem_.labels_of(m)[at % size_t(columns_)];
        right = expected_.log_probs[m][peak][label] >= expected_.peak_logp[at] - tolerance;
      }
      if (!right) throw std::runtime_error("peaks[" + std::to_string(at) + "] is " + std::to_string(peak));
    }
  }

  TextProblem problem_;
  crnn::BatchShape shape_;
  int64_t columns_;
  std::vector<Storage> logits_;
  Expected expected_;
  driver::DeterminismCheck determinism_;
};

std::vector<driver::Case> cases() {
  std::vector<driver::Case> all = driver::text_cases<Run>();
  const auto add = [&](const std::string& name, const TextProblem& problem) {
    all.push_back({name, driver::make_run_as<Run>(all.size(), problem)});
  };
  // Around the frames per word of moves, and around the block of frames of the backtracking.
  for (const int64_t frames : {7, 8, 9, 31, 32, 33, 64, 65})
    add(std::to_string(frames) + " frames", {.frames = frames,
                                             .classes = 5,
                                             .lengths = {frames, frames - 1},
                                             .texts = {{driver::labels_with_repeats(3, 5)}, {{1, 2, 3, 4}}},
                                             .integer_logits = frames % 2 == 0});
  // The fastest path, one label per frame, and a path that stays on one label.
  std::vector<int64_t> rising;
  for (int64_t i = 0; i < 100; ++i) rising.push_back(1 + i % 3);
  add("a label a frame", {.frames = 100, .classes = 4, .lengths = {100}, .texts = {{rising}}});
  add("one label in all frames", {.frames = 200,
                                  .classes = 3,
                                  .lengths = {200},
                                  .texts = {{{1}}},
                                  .overrides = {{driver::kAll, 0, 1, 20.0}}});
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  return driver::run(cases(), argc, argv);
}
