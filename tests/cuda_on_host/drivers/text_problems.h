// Test problems with several texts per sample, for the operators that take targets.
#pragma once

#include <numeric>
#include <optional>

#include "drivers/driver.h"
#include "drivers/reference_ctc.h"
#include "targets/target_offsets.cuh"

namespace driver {

struct Text {
  std::vector<int64_t> labels;
  std::optional<int64_t> length = {};  // overrides the target length, for invalid lengths

  int64_t target_length() const { return length.value_or(int64_t(labels.size())); }
};

struct TextProblem {
  int64_t frames, classes;
  std::vector<int64_t> lengths = {};  // (N,): frames of each sample
  std::vector<Text> texts = {};       // K per sample
  int64_t blank = 0;
  bool normalize = true;
  bool padded = true;
  int64_t padding = 0;  // extra labels after the longest text, or after the last one if concatenated
  Layout layout = Layout::kContiguous;
  bool integer_logits = false;  // so that many paths have equal sums
  std::vector<Override> overrides = {};
  unsigned seed = 0;

  crnn::BatchShape shape() const {
    const auto samples = int64_t(lengths.size());
    int64_t longest = 0, sum = padding;
    for (const Text& text : texts) {
      longest = std::max(longest, int64_t(text.labels.size()));
      sum += int64_t(text.labels.size());
    }
    const int64_t columns = padded ? longest + padding : 0;
    const int64_t texts_per_sample = samples == 0 ? 1 : int64_t(texts.size()) / samples;
    return {frames,          samples, classes,
            columns,         padded,  padded ? columns * int64_t(texts.size()) : sum,
            texts_per_sample};
  }

  // Whether the lengths of each text are valid: (texts,).
  std::vector<bool> valid_lengths() const {
    const crnn::BatchShape all = shape();
    std::vector<bool> result;
    int64_t available = all.labels;
    bool lost = false;
    for (size_t m = 0; m < texts.size(); ++m) {
      const int64_t length = texts[m].target_length(), most = padded ? all.padded_length : available;
      const bool fits = 0 <= length && length <= most;
      lost |= !padded && !fits;
      if (!lost) available -= length;
      const int64_t input_length = lengths[m / all.texts_per_sample];
      result.push_back(fits && !lost && 0 <= input_length && input_length <= frames);
    }
    return result;
  }

  // The first target_length() labels of text m, which may include padding. Its lengths must be valid.
  std::vector<int64_t> labels_of(size_t m) const {
    const std::vector<int64_t> all = targets();
    int64_t first = int64_t(m) * shape().padded_length;
    for (size_t before = 0; !padded && before < m; ++before) first += texts[before].target_length();
    return {all.begin() + first, all.begin() + first + texts[m].target_length()};
  }

  std::vector<int64_t> targets() const {
    constexpr int64_t kPadding = -77;
    std::vector<int64_t> all;
    for (const Text& text : texts) {
      all.insert(all.end(), text.labels.begin(), text.labels.end());
      if (padded) all.resize((&text - texts.data() + 1) * shape().padded_length, kPadding);
    }
    all.resize(shape().labels, kPadding);
    return all;
  }

  // (T, N, C); frames beyond the length of a sample are NaN.
  template <class Storage>
  std::vector<Storage> logits() const {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::vector<Storage> all;
    for (int64_t t = 0; t < frames; ++t) {
      for (int64_t n = 0; n < int64_t(lengths.size()); ++n) {
        for (int64_t c = 0; c < classes; ++c) {
          double x = 2 * normal(generator);
          if (integer_logits) x = std::round(x);
          for (const Override& one : overrides)
            if (one.applies_to(t, n, c)) x = one.value;
          all.push_back(from_double<Storage>(t < lengths[n] ? x : kNaN));
        }
      }
    }
    return all;
  }
};

// Logits or log-probabilities of one sample: (frames, classes).
using reference::Table;

template <class Storage>
Table rows_of(const TextProblem& problem, const std::vector<Storage>& logits, int64_t n) {
  Table rows;
  for (int64_t t = 0; t < problem.lengths[n]; ++t) {
    const Storage* row = &logits[(t * int64_t(problem.lengths.size()) + n) * problem.classes];
    rows.emplace_back();
    for (int64_t c = 0; c < problem.classes; ++c) rows.back().push_back(to_double(row[c]));
  }
  return rows;
}

inline Table log_probs_of(const TextProblem& problem, Table rows) {
  if (!problem.normalize) return rows;
  for (std::vector<double>& row : rows) {
    const double most = *std::max_element(row.begin(), row.end());
    if (most == -kInfinity) continue;
    double sum = 0;
    for (const double x : row) sum += std::exp(x - most);
    for (double& x : row) x = x - most - std::log(sum);
  }
  return rows;
}

// Whether a text has a score: its lengths and labels are valid, and the logits that it needs are neither NaN
// nor +inf.
inline bool is_well_defined(const TextProblem& problem, const Table& rows, size_t m) {
  if (!problem.valid_lengths()[m]) return false;
  std::vector<int64_t> needed = problem.labels_of(m);
  for (const int64_t label : needed)
    if (label < 0 || label >= problem.classes || label == problem.blank) return false;
  needed.push_back(problem.blank);
  if (problem.normalize) {
    needed.resize(problem.classes);
    std::iota(needed.begin(), needed.end(), 0);
  }
  for (const std::vector<double>& row : rows)
    for (const int64_t c : needed)
      if (!(row[c] < kInfinity)) return false;
  return true;
}

// The targets and lengths of a problem in device memory.
class DeviceTexts {
 public:
  DeviceTexts(const TextProblem& problem, crnn::gpu::Stream stream)
      : shape_(problem.shape()),
        blank_(problem.blank),
        targets_(problem.padded ? std::vector<int64_t>{shape_.texts(), shape_.padded_length}
                                : std::vector<int64_t>{shape_.labels},
                 problem.targets()),
        input_lengths_({shape_.samples}, problem.lengths),
        target_lengths_({shape_.texts()}, target_lengths(problem)),
        target_offsets_({problem.padded ? 0 : shape_.texts()}) {
    crnn::launch_target_offsets(batch(), target_offsets_.data(), stream);
  }

  crnn::DeviceBatch batch() const {
    return {shape_,
            blank_,
            crnn::IndexView(targets_),
            crnn::IndexView(input_lengths_),
            crnn::IndexView(target_lengths_),
            target_offsets_.data()};
  }

 private:
  static std::vector<int64_t> target_lengths(const TextProblem& problem) {
    std::vector<int64_t> lengths;
    for (const Text& text : problem.texts) lengths.push_back(text.target_length());
    return lengths;
  }

  crnn::BatchShape shape_;
  int64_t blank_;
  DeviceTensor<int64_t> targets_, input_lengths_, target_lengths_, target_offsets_;
};

// Two samples with two texts each. One text has `pairs` pairs and a few frames more than it needs.
inline TextProblem problem_with_pairs(int64_t pairs) {
  const std::vector<int64_t> labels = labels_with_repeats(pairs - 1, 9);
  int64_t frames = pairs + 2;
  for (size_t i = 1; i < labels.size(); ++i) frames += labels[i] == labels[i - 1];
  return {.frames = frames,
          .classes = 9,
          .lengths = {std::min<int64_t>(frames, 5), frames},
          .texts = {{{1, 2}}, {{3}}, {{}}, {labels}},
          .padded = pairs % 2 == 0};
}

// Three short samples with two texts each.
inline TextProblem problem_with_classes(int64_t classes, int64_t blank, Layout layout) {
  const int64_t labels = classes > 1 ? 2 : 0;
  return {.frames = 5,
          .classes = classes,
          .lengths = {5, 4, 3},
          .texts = {{labels_with_repeats(labels, classes, blank)},
                    {},
                    {labels_with_repeats(labels / 2, classes, blank)},
                    {labels_with_repeats(labels, classes, blank)},
                    {},
                    {}},
          .blank = blank,
          .layout = layout};
}

inline TextProblem random_text_problem(unsigned seed) {
  std::mt19937 generator(seed);
  const auto up_to = [&](int64_t most) { return int64_t(generator() % (most + 1)); };
  const auto flip = [&] { return up_to(1) == 1; };
  TextProblem problem{.frames = up_to(70), .classes = 2 + up_to(80)};
  problem.blank = up_to(problem.classes - 1);
  problem.lengths.resize(1 + up_to(2));
  for (int64_t& frames : problem.lengths) frames = up_to(problem.frames);
  const int64_t texts_per_sample = 1 + up_to(2);
  for (const int64_t frames : problem.lengths)
    for (int64_t k = 0; k < texts_per_sample; ++k)
      problem.texts.push_back(
          {labels_with_repeats(up_to(frames), 2 + up_to(problem.classes - 2), problem.blank)});
  problem.normalize = flip();
  problem.padded = flip();
  problem.padding = up_to(3);
  problem.layout = Layout(up_to(3));
  problem.integer_logits = flip();
  problem.seed = seed;
  return problem;
}

// The problems that every operator on texts must solve.
inline std::vector<std::pair<std::string, TextProblem>> text_problems() {
  using enum Layout;
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  std::vector<std::pair<std::string, TextProblem>> all;
  const auto add = [&](const std::string& name, const TextProblem& problem) {
    all.push_back({name, problem});
  };

  for (const int64_t pairs : {1, 2, 31, 32, 33, 64, 65, 128, 129, 256, 257, 512, 513})
    add(std::to_string(pairs) + " pairs", problem_with_pairs(pairs));
  add("no frames", {.frames = 0, .classes = 4, .lengths = {0, 0}, .texts = {{{}}, {{1}}}});
  add("1 frame",
      {.frames = 1, .classes = 4, .lengths = {1, 0}, .texts = {{{1}}, {{}}, {{1, 2}}, {{}}, {{2}}, {{3}}}});
  add("no samples", {.frames = 3, .classes = 4});
  add("2 classes", problem_with_classes(2, 1, kContiguous));
  add("1 class", problem_with_classes(1, 0, kContiguous));
  add("64 classes batch first", problem_with_classes(64, 63, kBatchFirst));
  add("65 classes in a slice", problem_with_classes(65, 7, kSlice));
  add("1024 classes", problem_with_classes(1024, 500, kContiguous));
  add("1025 classes in a slice", problem_with_classes(1025, 1024, kSlice));
  add("class stride", problem_with_classes(20, 3, kClassStride));

  add("padded invalid lengths",
      {.frames = 5,
       .classes = 6,
       .lengths = {5, 6, -1, 4},
       .texts = {{{1, 2}, -1}, {{1, 2}}, {{1}}, {{2}}, {{3, 3}}, {{1}}, {{1}, kHuge}, {{1, 2}, 3}}});
  add("concatenated invalid lengths", {.frames = 5,
                                       .classes = 6,
                                       .lengths = {5, 4, 5},
                                       .texts = {{{1, 2}}, {{3}}, {{2, 4}}, {{5}, 7}, {{1}}, {{2}}},
                                       .padded = false});
  const std::vector<Text> wrong_labels = {{{1, -1}}, {{6, 1}},    {{3}},
                                          {{3, 1}},  {{1, 2, 3}}, {{(int64_t(1) << 32) + 1}}};
  for (const bool padded : {true, false})
    add(padded ? "invalid labels" : "concatenated invalid labels", {.frames = 5,
                                                                    .classes = 6,
                                                                    .lengths = {5, 4, 5},
                                                                    .texts = wrong_labels,
                                                                    .blank = 2,
                                                                    .padded = padded});
  // The longest text has more labels than a block has threads.
  add("impossible texts",
      {.frames = 4,
       .classes = 6,
       .lengths = {3, 4},
       .texts = {
           {{1, 2, 3, 4}}, {{1, 1, 2}}, {{1, 2, 3}}, {{1, 1, 2}}, {{}}, {labels_with_repeats(300, 6)}}});
  add("repeated labels",
      {.frames = 90,
       .classes = 4,
       .lengths = {9, 90},
       .texts = {{{1, 1}}, {{1, 2, 1}}, {std::vector<int64_t>(45, 3)}, {labels_with_repeats(60, 3)}},
       .padded = false,
       .padding = 1});

  const std::vector<Text> six = {{{1, 2}}, {{3}}, {{4, 4}}, {{5}}, {{2, 4}}, {{}}};
  add("masked classes", {.frames = 6,
                         .classes = 6,
                         .lengths = {6, 6, 5},
                         .texts = six,
                         .overrides = {{kAll, kAll, 5, -kInfinity},
                                       {2, 0, 1, -kInfinity},
                                       {kAll, 1, 0, -kInfinity},
                                       {3, 2, kAll, -kInfinity}}});
  for (const bool normalize : {true, false})
    add(normalize ? "NaN and infinite logits" : "log_probs",
        {.frames = 6,
         .classes = 6,
         .lengths = {6, 6, 5},
         .texts = six,
         .normalize = normalize,
         .overrides = {{3, 0, 3, kNaN}, {0, 1, 5, kInfinity}, {5, 2, 2, kNaN}}});
  constexpr unsigned kRandomCases = 12;
  for (unsigned seed = 1; seed <= kRandomCases; ++seed)
    add("random " + std::to_string(seed), random_text_problem(seed));
  return all;
}

// Runs a problem in one of the four dtypes. The Run is constructed on the first call.
template <template <class> class Run>
std::function<void()> make_run_as(size_t type, const TextProblem& problem) {
  const auto as = [&](auto storage) -> std::function<void()> {
    return [problem, run = std::optional<Run<decltype(storage)>>()]() mutable {
      if (!run.has_value()) run.emplace(problem);
      (*run)();
    };
  };
  switch (type % 4) {
    case 0:
      return as(float{});
    case 1:
      return as(double{});
    case 2:
      return as(crnn::Half{});
    default:
      return as(crnn::BFloat16{});
  }
}

// A case for each problem; the dtypes alternate.
template <template <class> class Run>
std::vector<Case> text_cases() {
  std::vector<Case> cases;
  for (const auto& [name, problem] : text_problems())
    cases.push_back({name, make_run_as<Run>(cases.size(), problem)});
  return cases;
}

}  // namespace driver
