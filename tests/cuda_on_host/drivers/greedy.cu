// The greedy_decode operator.
#include "drivers/driver.h"
#include "greedy/kernels.cuh"

namespace {

using crnn::BFloat16;
using crnn::Half;
using driver::DeviceTensor;
using driver::expect_close;
using driver::from_double;
using driver::kNaN;
using driver::Layout;

struct Problem {
  int64_t frames, samples;
  int classes;
  std::vector<int64_t> lengths;  // (N,)
  int blank;
  bool normalize;
  Layout layout;
  int hold = 1;  // number of frames between changes of the best class
  unsigned seed = 0;
};

template <class Storage>
std::vector<Storage> random_logits(const Problem& problem) {
  std::mt19937 generator(problem.seed);
  std::normal_distribution<double> normal;
  std::vector<Storage> logits(problem.frames * problem.samples * problem.classes);
  for (int64_t t = 0; t < problem.frames; ++t) {
    for (int64_t n = 0; n < problem.samples; ++n) {
      Storage* row = &logits[(t * problem.samples + n) * problem.classes];
      for (int c = 0; c < problem.classes; ++c) row[c] = from_double<Storage>(2 * normal(generator));
      row[t / problem.hold * (n + 7) % problem.classes] = from_double<Storage>(9);
    }
  }
  return logits;
}

struct Expected {
  std::vector<int64_t> tokens, lengths, starts, ends;
  std::vector<double> scores, token_logp;
};

template <class Storage>
Expected reference_decode(const Problem& problem, const std::vector<Storage>& logits) {
  Expected expected;
  for (int64_t n = 0; n < problem.samples; ++n) {
    const int64_t length = problem.lengths[n];
    const bool possible = length >= 0 && length <= problem.frames;
    double score = possible ? 0 : kNaN, token_logp = 0;
    int64_t count = 0, start = 0;
    int previous = problem.blank;
    const auto end_token = [&](int64_t end) {
      if (previous == problem.blank) return;
      ++count;
      expected.tokens.push_back(previous);
      expected.starts.push_back(start);
      expected.ends.push_back(end);
      expected.token_logp.push_back(token_logp / double(end - start));
    };
    for (int64_t t = 0; t < (possible ? length : 0); ++t) {
      const Storage* row = &logits[(t * problem.samples + n) * problem.classes];
      int best = 0;
      for (int c = 1; c < problem.classes; ++c)
        if (crnn::to_compute(row[c]) > crnn::to_compute(row[best])) best = c;
      double logp = crnn::to_compute(row[best]);
      if (problem.normalize) {
        double sum = 0;
        for (int c = 0; c < problem.classes; ++c) sum += std::exp(crnn::to_compute(row[c]) - logp);
        logp = -std::log(sum);
      }
      if (best != previous) {
        end_token(t);
        start = t;
        token_logp = 0;
      }
      token_logp += logp;
      score += logp;
      previous = best;
    }
    end_token(possible ? length : 0);
    expected.scores.push_back(score);
    expected.lengths.push_back(count);
    for (std::vector<int64_t>* padded : {&expected.tokens, &expected.starts, &expected.ends})
      padded->resize((n + 1) * problem.frames, -1);
    expected.token_logp.resize((n + 1) * problem.frames, 0);
  }
  return expected;
}

template <class Storage>
void run(const Problem& problem) {
  using Real = typename crnn::ComputeType<Storage>::Real;
  const int64_t frames = problem.frames, samples = problem.samples;
  const std::vector<Storage> logits = random_logits<Storage>(problem);
  const driver::StridedLayout placement(problem.layout, frames, samples, problem.classes);
  const DeviceTensor<Storage> device_logits = placement.tensor(logits, from_double<Storage>(kNaN));
  const DeviceTensor<int64_t> input_lengths({samples}, problem.lengths);
  const DeviceTensor<int32_t> best_class({samples, frames});
  const DeviceTensor<Real> best_logp({samples, frames});
  const DeviceTensor<int64_t> tokens({samples, frames}), starts({samples, frames}), ends({samples, frames});
  const DeviceTensor<int64_t> lengths({samples});
  const DeviceTensor<Real> scores({samples}), token_logp({samples, frames});

  crnn::greedy::launch_greedy_decode<Storage, Real>(
      crnn::TncView<const Storage>(device_logits.data(), device_logits), crnn::IndexView(input_lengths),
      frames, samples, problem.classes, problem.blank, problem.normalize, best_class.data(), best_logp.data(),
      {tokens.data(), lengths.data(), scores.data(), starts.data(), ends.data(), token_logp.data(), frames},
      {nullptr, "greedy_decode"});

  const Expected expected = reference_decode(problem, logits);
  const double tolerance = sizeof(Real) == 4 ? 1e-5 : 1e-12;
  expect_close("tokens", tokens, expected.tokens);
  expect_close("lengths", lengths, expected.lengths);
  expect_close("starts", starts, expected.starts);
  expect_close("ends", ends, expected.ends);
  expect_close("scores", scores, expected.scores, tolerance);
  expect_close("token_logp", token_logp, expected.token_logp, tolerance);
}

std::vector<driver::Case> cases() {
  std::vector<driver::Case> all;
  const auto add = [&](const std::string& name, void (*run)(const Problem&), const Problem& problem) {
    all.push_back({name, [run, problem] { run(problem); }});
  };
  using enum Layout;
  const std::vector<int64_t> two = {2, 2}, mixed = {3, 0, 2};
  add("1 class", run<float>, {3, 3, 1, mixed, 0, true, kContiguous});
  add("2 classes", run<double>, {3, 3, 2, mixed, 1, true, kContiguous});
  add("9 classes", run<Half>, {3, 3, 9, mixed, 0, true, kContiguous});
  add("64 classes", run<BFloat16>, {2, 2, 64, two, 5, true, kContiguous});
  add("65 classes", run<float>, {2, 2, 65, two, 0, true, kContiguous});
  add("257 classes", run<Half>, {2, 2, 257, two, 256, true, kContiguous});
  add("1024 classes", run<double>, {2, 2, 1024, two, 0, true, kContiguous});
  add("1025 classes", run<BFloat16>, {2, 2, 1025, two, 0, true, kContiguous});
  add("3000 classes", run<float>, {2, 2, 3000, two, 0, true, kContiguous});
  add("3000 classes in a slice", run<Half>, {2, 2, 3000, two, 0, true, kSlice});
  add("raw scores", run<float>, {5, 2, 20, {5, 4}, 0, false, kContiguous});
  add("batch first", run<float>, {5, 3, 70, {5, 4, 1}, 0, true, kBatchFirst});
  add("class stride", run<Half>, {5, 2, 70, {5, 4}, 0, true, kClassStride});
  add("slice", run<BFloat16>, {5, 2, 70, {5, 4}, 0, true, kSlice});
  add("one tile", run<float>, {256, 1, 4, {256}, 0, true, kContiguous, 3});
  add("a frame beyond a tile", run<float>, {257, 1, 4, {257}, 0, true, kContiguous, 2});
  add("tokens across tiles", run<double>, {600, 2, 4, {600, 511}, 0, true, kContiguous, 100});
  add("one token", run<float>, {600, 1, 3, {600}, 1, true, kContiguous, 600});
  add("invalid lengths", run<float>, {4, 3, 5, {5, -1, 4}, 0, true, kContiguous});
  add("no frames", run<float>, {0, 2, 5, {0, 0}, 0, true, kContiguous});
  add("no samples", run<float>, {4, 0, 5, {}, 0, true, kContiguous});

  constexpr unsigned kRandomCases = 12;
  for (unsigned seed = 1; seed <= kRandomCases; ++seed) {
    std::mt19937 generator(seed);
    const auto up_to = [&](unsigned most) { return int(generator() % (most + 1)); };
    Problem problem;
    problem.frames = up_to(40);
    problem.samples = 1 + up_to(3);
    problem.classes = 1 + up_to(80);
    for (int n = 0; n < problem.samples; ++n) problem.lengths.push_back(up_to(unsigned(problem.frames)));
    problem.blank = up_to(unsigned(problem.classes - 1));
    problem.normalize = up_to(1) == 1;
    problem.layout = Layout(up_to(3));
    problem.hold = 1 + up_to(4);
    problem.seed = seed;
    constexpr void (*kRuns[])(const Problem&) = {run<float>, run<double>, run<Half>, run<BFloat16>};
    add("random " + std::to_string(seed), kRuns[seed % 4], problem);
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  return driver::run(cases(), argc, argv);
}
