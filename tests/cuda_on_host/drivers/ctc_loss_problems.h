// Test problems for the ctc_loss operator.
#pragma once

#include <optional>

#include "ctc_loss/kernels.cuh"
#include "drivers/driver.h"

namespace driver::loss {

using crnn::ctc_loss::Reduction;

struct Sample {
  int64_t frames;
  std::vector<int64_t> labels;
  std::optional<int64_t> length = {};           // overrides the target length, for invalid lengths
  std::optional<int64_t> backward_length = {};  // an invalid length that replaces it before the backward pass

  int64_t target_length() const { return length.value_or(int64_t(labels.size())); }
};

struct Problem {
  int64_t frames, classes;
  std::vector<Sample> samples = {};
  int64_t blank = 0;
  Reduction reduction = Reduction::kNone;
  bool zero_infinity = false;
  bool normalize = true;
  bool padded = true;
  int64_t padding = 0;  // extra labels after the longest target, or after the last one if concatenated
  int64_t longest = std::numeric_limits<int64_t>::max();  // see BatchShape
  bool wide = true;                                       // int64 lengths and labels, otherwise int32
  Layout layout = Layout::kContiguous, gradient_layout = Layout::kContiguous;
  std::vector<Override> overrides = {};
  unsigned seed = 0;

  crnn::BatchShape shape() const {
    crnn::BatchShape shape{frames, int64_t(samples.size()), classes, 0, padded, padding};
    for (const Sample& sample : samples) {
      const auto length = int64_t(sample.labels.size());
      shape.padded_length = std::max(shape.padded_length, length + padding);
      shape.labels += length;
    }
    if (padded) {
      shape.labels = shape.samples * shape.padded_length;
    } else {
      shape.padded_length = 0;
    }
    shape.longest_target = longest;
    return shape;
  }

  std::vector<int64_t> targets() const {
    constexpr int64_t kPadding = -77;
    std::vector<int64_t> all;
    for (const Sample& sample : samples) {
      all.insert(all.end(), sample.labels.begin(), sample.labels.end());
      if (padded) all.resize((&sample - samples.data() + 1) * shape().padded_length, kPadding);
    }
    all.resize(shape().labels, kPadding);
    return all;
  }

  // Whether the lengths of each sample are valid: (N,).
  std::vector<bool> valid_lengths() const {
    std::vector<bool> all;
    int64_t available = shape().labels;
    bool lost = false;
    for (const Sample& sample : samples) {
      const int64_t length = sample.target_length(), most = padded ? shape().padded_length : available;
      const bool fits = 0 <= length && length <= most;
      lost |= !padded && !fits;
      if (!lost) available -= length;
      all.push_back(fits && length <= longest && !lost && 0 <= sample.frames && sample.frames <= frames);
    }
    return all;
  }
};

// (T, N, C); frames beyond the length of a sample are NaN.
template <class Storage>
std::vector<Storage> logits_of(const Problem& problem) {
  std::mt19937 generator(problem.seed);
  std::normal_distribution<double> normal;
  const int64_t samples = int64_t(problem.samples.size()), classes = problem.classes;
  std::vector<Storage> logits;
  for (int64_t t = 0; t < problem.frames; ++t) {
    for (int64_t n = 0; n < samples; ++n) {
      std::vector<double> row(classes);
      for (double& x : row) x = 2 * normal(generator);
      double sum = 0;
      for (const double x : row) sum += std::exp(x);
      for (int64_t c = 0; c < classes; ++c) {
        double x = problem.normalize ? row[c] : row[c] - std::log(sum);
        for (const Override& one : problem.overrides)
          if (one.applies_to(t, n, c)) x = one.value;
        if (t >= problem.samples[n].frames) x = kNaN;
        logits.push_back(from_double<Storage>(x));
      }
    }
  }
  return logits;
}

// The number of frames that the shortest path of the labels needs.
inline int64_t min_frames(const std::vector<int64_t>& labels) {
  int64_t frames = int64_t(labels.size());
  for (size_t i = 1; i < labels.size(); ++i) frames += labels[i] == labels[i - 1];
  return frames;
}

// One sample whose target has `pairs` pairs. It has a few frames more than it needs, and an odd number of
// frames, so that alpha takes one step more than beta.
inline Problem problem_with_pairs(int64_t pairs) {
  const std::vector<int64_t> labels = labels_with_repeats(pairs - 1, 9);
  const int64_t frames = (min_frames(labels) + 2) / 2 * 2 + 1;
  return {.frames = frames, .classes = 9, .samples = {{frames, labels}}};
}

// The same target as the second of two samples, with an even number of frames.
inline Problem second_sample_with_pairs(int64_t pairs) {
  Problem problem = problem_with_pairs(pairs);
  problem.samples[0].frames = ++problem.frames;
  problem.samples.insert(problem.samples.begin(), {4, {3, 1}});
  problem.padded = false;
  return problem;
}

// Three short samples.
inline Problem problem_with_classes(int64_t classes, int64_t blank, Layout layout, Layout gradient_layout) {
  const int64_t labels = classes > 1 ? 2 : 0;
  return {.frames = 5,
          .classes = classes,
          .samples = {{5, labels_with_repeats(labels, classes, blank)},
                      {4, labels_with_repeats(labels / 2, classes, blank)},
                      {3, {}}},
          .blank = blank,
          .layout = layout,
          .gradient_layout = gradient_layout};
}

// Enough samples for two tiles of the scan; sample number `wrong` has the target length `length`.
inline Problem problem_with_many_samples(Reduction reduction, int64_t wrong = -1, int64_t length = 0) {
  Problem problem{.frames = 1, .classes = 3, .reduction = reduction, .padded = false, .padding = 2};
  for (int64_t n = 0; n < 300; ++n) {
    problem.samples.push_back({1, labels_with_repeats(n % 5 == 0, 3)});
    if (n == wrong) problem.samples.back().length = length;
  }
  return problem;
}

inline Problem random_problem(unsigned seed) {
  std::mt19937 generator(seed);
  const auto up_to = [&](int64_t most) { return int64_t(generator() % (most + 1)); };
  const auto flip = [&] { return up_to(1) == 1; };
  Problem problem{.frames = up_to(40), .classes = 2 + up_to(80), .seed = seed};
  problem.blank = up_to(problem.classes - 1);
  problem.samples.resize(1 + up_to(3));
  for (Sample& sample : problem.samples) {
    sample.frames = up_to(problem.frames);
    sample.labels = labels_with_repeats(up_to(sample.frames), 2 + up_to(problem.classes - 2), problem.blank);
  }
  problem.reduction = Reduction(up_to(2));
  problem.zero_infinity = flip();
  problem.normalize = flip();
  problem.padded = flip();
  problem.padding = up_to(3);
  problem.wide = flip();
  problem.layout = Layout(up_to(3));
  problem.gradient_layout = Layout(up_to(3));
  return problem;
}

}  // namespace driver::loss
