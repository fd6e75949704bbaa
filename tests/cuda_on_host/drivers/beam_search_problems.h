// Test problems for the beam_search operator.
#pragma once

#include <bit>

#include "drivers/driver.h"
#include "drivers/fusion_tables.h"

namespace driver::search {

// How the logits of a row are drawn: normally distributed, in random order or sorted by class; or 0 for a
// random power of two of the classes and -inf for the others, so that all sums of probabilities are exact and
// ties abound.
enum class RowKind { kRandom, kAscending, kDescending, kUniform };

struct Problem {
  int64_t frames;
  int classes;
  std::vector<int64_t> lengths = {};  // (N,)
  int64_t beam = 1;
  int64_t nbest = beam;
  int blank = 0;
  bool normalize = true;
  int64_t token_top_k = std::numeric_limits<int64_t>::max();
  double token_min_logp = -kInfinity, beam_threshold = kInfinity;
  FusionConfig fused = {};
  RowKind rows = RowKind::kRandom;
  double scale = 2;  // standard deviation of the logits
  std::vector<Override> overrides = {};
  bool overrides_are_uniform = false;  // all possible classes of a frame stay equally probable
  Layout layout = Layout::kContiguous;
  unsigned seed = 0;

  int64_t samples() const { return int64_t(lengths.size()); }
  bool ties_are_exact() const { return overrides_are_uniform || rows == RowKind::kUniform; }
  bool is_possible(int64_t n) const { return 0 <= lengths[n] && lengths[n] <= frames; }
};

inline std::vector<double> random_row(const Problem& problem, std::mt19937* generator) {
  std::normal_distribution<double> normal;
  std::vector<double> row(problem.classes);
  for (double& x : row) x = problem.scale * normal(*generator);
  if (problem.rows == RowKind::kAscending) std::sort(row.begin(), row.end());
  if (problem.rows == RowKind::kDescending) std::sort(row.rbegin(), row.rend());
  if (problem.rows == RowKind::kUniform) {
    const int most = std::bit_width(unsigned(problem.classes)) - 1;
    const int live = 1 << ((*generator)() % 2 == 0 ? most : (*generator)() % unsigned(most + 1));
    std::fill(row.begin(), row.end(), -kInfinity);
    std::fill(row.begin(), row.begin() + live, 0);
    std::shuffle(row.begin(), row.end(), *generator);
  }
  return row;
}

// (T, N, C); frames beyond the length of a sample are NaN.
template <class Storage>
std::vector<Storage> logits_of(const Problem& problem) {
  std::mt19937 generator(problem.seed);
  std::vector<Storage> logits;
  for (int64_t t = 0; t < problem.frames; ++t) {
    for (int64_t n = 0; n < problem.samples(); ++n) {
      const std::vector<double> row = random_row(problem, &generator);
      double sum = 0;
      for (const double x : row) sum += std::exp(x);
      for (int c = 0; c < problem.classes; ++c) {
        double x = problem.normalize ? row[c] : row[c] - std::log(sum);
        for (const Override& one : problem.overrides)
          if (one.applies_to(t, n, c)) x = one.value;
        logits.push_back(from_double<Storage>(t < problem.lengths[n] ? x : kNaN));
      }
    }
  }
  return logits;
}

// One sample with these probabilities (frames, classes), which need not sum to 1.
inline Problem problem_from_rows(const std::vector<std::vector<double>>& rows, int64_t beam) {
  const auto frames = int64_t(rows.size()), classes = int64_t(rows[0].size());
  Problem problem{.frames = frames, .classes = int(classes), .lengths = {frames}, .beam = beam};
  for (int64_t t = 0; t < frames; ++t)
    for (int64_t c = 0; c < classes; ++c) problem.overrides.push_back({t, 0, c, std::log(rows[t][c])});
  return problem;
}

// As problem_from_rows, for rows whose nonzero probabilities are equal.
inline Problem problem_from_uniform_rows(const std::vector<std::vector<double>>& rows, int64_t beam) {
  Problem problem = problem_from_rows(rows, beam);
  problem.overrides_are_uniform = true;
  return problem;
}

// Probability 1 for `count` classes from `first` on, and 0 for the others.
inline std::vector<double> uniform_row(int classes, int first, int count) {
  std::vector<double> row(classes);
  std::fill_n(row.begin() + first, count, 1);
  return row;
}

// All prefixes are equally probable and end in class 1, half of the probability in the label and half in a
// blank, so that class 1 extends them with half of their probability only. Extending them by each of the
// equally probable other tokens fills the beam. The last of these extensions is the last in search order that
// can enter.
inline Problem problem_with_last_extension(int prefixes, int tokens) {
  const int classes = 2 + tokens + prefixes;
  return problem_from_uniform_rows({uniform_row(classes, 2 + tokens, prefixes), uniform_row(classes, 1, 1),
                                    uniform_row(classes, 0, 2), uniform_row(classes, 1, 1 + tokens)},
                                   prefixes * tokens);
}

// 20 * 15 prefixes, none of which stays in the beam: each is extended by one more token.
inline Problem problem_with_all_extended() {
  constexpr int kClasses = 37;
  return problem_from_uniform_rows(
      {uniform_row(kClasses, 1, 20), uniform_row(kClasses, 21, 15), uniform_row(kClasses, 36, 1)}, 300);
}

// In the second frame, class 2 extends the prefix with a probability of 0.2546, slightly above the 0.245 with
// which the prefix stays. But the approximate logarithms of its factors, 0.7071 and 0.36, sum to less than
// that of 0.245.
inline Problem problem_with_inexact_logarithms() {
  return problem_from_rows({{0.2, 0.7071, 0.05, 0.0429}, {0.3, 0.0465, 0.36, 0.2935}}, 1);
}

// The top-k selection receives 256 tokens at a time and compacts when it holds more than 512: here it
// receives 256, 256, 2 and 256.
inline Problem problem_with_partial_push() {
  Problem problem{.frames = 1,
                  .classes = 1024,
                  .lengths = {1},
                  .beam = 256,
                  .nbest = 5,
                  .blank = 600,
                  .rows = RowKind::kAscending};
  for (int c = 514; c < 768; ++c)
    if (c != problem.blank) problem.overrides.push_back({0, 0, c, -kInfinity});
  return problem;
}

inline Problem random_problem(unsigned seed) {
  Random random(seed);
  const auto flip = [&] { return random.up_to(1) == 1; };
  Problem problem{.frames = random.up_to(9), .classes = 1 + random.up_to(flip() ? 5 : 60), .seed = seed};
  for (int left = 1 + random.up_to(2); left > 0; --left)
    problem.lengths.push_back(random.up_to(int(problem.frames)));
  problem.beam = 1 + random.up_to(flip() ? 5 : 40);
  problem.nbest = 1 + random.up_to(int(problem.beam) - 1);
  problem.blank = random.up_to(problem.classes - 1);
  problem.normalize = flip();
  if (flip()) problem.token_top_k = 1 + random.up_to(20);
  if (flip()) problem.token_min_logp = random.weight(-6, -1);
  if (flip()) problem.beam_threshold = random.weight(1, 9);
  if (flip()) {
    problem.fused.lm = LanguageModel(random.up_to(2));
    problem.fused.hotwords = flip();
    problem.fused.token_score = random.weight(-1, 1);
    const std::vector<std::optional<double>> kinds = {-kInfinity, -1.5, std::nullopt};
    if (problem.fused.lm == LanguageModel::kOverWords || flip())
      for (int64_t n = 0; n < problem.samples(); ++n)
        problem.fused.lexicons.push_back(kinds[random.up_to(2)]);
  }
  problem.scale = 1 + random.up_to(3);
  problem.layout = Layout(random.up_to(3));
  return problem;
}

}  // namespace driver::search
