// The ctc_loss operator and its gradient.
#include <numeric>
#include <optional>

#include "ctc_loss/kernels.cuh"
#include "drivers/ctc_loss_problems.h"
#include "drivers/reference_ctc.h"
#include "forward_backward/kernels.cuh"

namespace {

namespace ctc = crnn::ctc_loss;
using namespace driver::loss;
using crnn::BFloat16;
using crnn::Half;
using ctc::Reduction;
using driver::DeviceTensor;
using driver::expect_close;
using driver::from_double;
using driver::kAll;
using driver::kInfinity;
using driver::kNaN;
using driver::labels_with_repeats;
using driver::Layout;
using reference::log_sum;
using reference::Table;

constexpr crnn::gpu::Stream kStream = {nullptr, "ctc_loss"};

// ---- Reference ----

struct Expected {
  std::vector<double> loss;      // (N), or () as one element
  std::vector<double> gradient;  // (T, N, C)
};

// grad_loss: (N), or () as one element
template <class Storage>
Expected reference_result(const Problem& problem, const std::vector<Storage>& logits,
                          const std::vector<double>& grad_loss) {
  const int64_t samples = int64_t(problem.samples.size()), classes = problem.classes;
  const bool reduced = problem.reduction != Reduction::kNone;
  const std::vector<bool> valid = problem.valid_lengths();
  Expected expected;
  expected.gradient.resize(problem.frames * samples * classes);
  double sum_of_losses = 0;
  for (int64_t n = 0; n < samples; ++n) {
    const Sample& sample = problem.samples[n];
    const int64_t length = valid[n] ? sample.target_length() : 0;
    const bool frames_fit = 0 <= sample.frames && sample.frames <= problem.frames;
    const int64_t frames = frames_fit ? sample.frames : problem.frames;
    const std::vector<int64_t> labels(sample.labels.begin(), sample.labels.begin() + length);
    bool sound = valid[n];
    for (const int64_t label : labels) sound &= 0 <= label && label < classes && label != problem.blank;

    Table log_probs(sound ? frames : 0, std::vector<double>(classes));
    for (size_t t = 0; t < log_probs.size(); ++t) {
      std::vector<double>& row = log_probs[t];
      for (int64_t c = 0; c < classes; ++c)
        row[c] = driver::to_double(logits[(t * samples + n) * classes + c]);
      if (problem.normalize) {
        for (const double x : row) sound &= x < kInfinity;
        const double all = std::accumulate(row.begin(), row.end(), -kInfinity, log_sum);
        if (all == -kInfinity) continue;
        for (double& x : row) x -= all;
      } else {
        const auto in_bounds = [&](int64_t c) { return row[c] < crnn::max_log_prob(frames); };
        sound &= in_bounds(problem.blank) && std::all_of(labels.begin(), labels.end(), in_bounds);
      }
    }

    const reference::Solution solution =
        sound ? reference::forward_backward(log_probs, classes, labels, problem.blank)
              : reference::Solution{kNaN, {}};
    const bool ignored = problem.zero_infinity && solution.loss == kInfinity;
    const double loss = ignored ? 0 : solution.loss;
    const double weight = problem.reduction == Reduction::kMean
                              ? 1 / (double(std::max<int64_t>(length, 1)) * double(samples))
                              : 1;
    sum_of_losses += loss * weight;
    if (!reduced) expected.loss.push_back(loss);

    const double scale = grad_loss[reduced ? 0 : n] * weight;
    for (int64_t t = 0; t < frames; ++t) {
      for (int64_t c = 0; c < classes; ++c) {
        double& gradient = expected.gradient[(t * samples + n) * classes + c];
        if (sample.backward_length.has_value()) {
          gradient = kNaN;
        } else if (ignored) {
          gradient = 0;
        } else if (solution.posterior.empty()) {
          gradient = kNaN;
        } else {
          const double softmax = problem.normalize ? std::exp(log_probs[t][c]) : 0;
          gradient = scale * (softmax - solution.posterior[t][c]);
        }
      }
    }
  }
  const bool nothing_to_mean = samples == 0 && problem.reduction == Reduction::kMean;
  if (reduced) expected.loss = {nothing_to_mean ? kNaN : sum_of_losses};
  return expected;
}

// ---- The kernels ----

// An int32 or int64 tensor.
class IndexTensor {
 public:
  IndexTensor(const std::vector<int64_t>& shape, const std::vector<int64_t>& values, bool wide)
      : narrow_(shape, std::vector<int32_t>(values.begin(), values.end())),
        wide_(shape, values),
        is_wide_(wide) {}

  crnn::IndexView view() const { return is_wide_ ? crnn::IndexView(wide_) : crnn::IndexView(narrow_); }

 private:
  DeviceTensor<int32_t> narrow_;
  DeviceTensor<int64_t> wide_;
  bool is_wide_;
};

// A problem with its logits and expected results.
template <class Storage>
class Run {
 public:
  explicit Run(const Problem& problem)
      : problem_(problem),
        shape_(problem.shape()),
        reduced_(problem.reduction != Reduction::kNone),
        logits_(logits_of<Storage>(problem)) {
    std::mt19937 generator(problem.seed + 1);
    std::normal_distribution<float> normal;
    for (int64_t n = 0; n < (reduced_ ? 1 : shape_.samples); ++n) grad_loss_.push_back(normal(generator));
    expected_ = reference_result(problem, logits_, grad_loss_);
  }

  void operator()() {
    const IndexTensor targets(
        problem_.padded ? Dimensions{shape_.samples, shape_.padded_length} : Dimensions{shape_.labels},
        problem_.targets(), problem_.wide);
    std::vector<int64_t> frames, lengths, backward_lengths;
    for (const Sample& sample : problem_.samples) {
      frames.push_back(sample.frames);
      lengths.push_back(sample.target_length());
      backward_lengths.push_back(sample.backward_length.value_or(lengths.back()));
    }
    const IndexTensor input_lengths({shape_.samples}, frames, problem_.wide);
    const IndexTensor target_lengths({shape_.samples}, lengths, problem_.wide);
    const IndexTensor changed_lengths({shape_.samples}, backward_lengths, problem_.wide);
    const DeviceTensor<int64_t> target_offsets({problem_.padded ? 0 : shape_.samples});
    const auto batch_with = [&](const IndexTensor& its_target_lengths) {
      const crnn::DeviceBatch batch{shape_,
                                    problem_.blank,
                                    targets.view(),
                                    input_lengths.view(),
                                    its_target_lengths.view(),
                                    target_offsets.data()};
      crnn::launch_target_offsets(batch, target_offsets.data(), kStream);
      return batch;
    };
    const DeviceTensor<Storage> logits =
        driver::StridedLayout(problem_.layout, shape_.frames, shape_.samples, shape_.classes)
            .tensor(logits_, from_double<Storage>(kNaN));

    const crnn::DeviceBatch batch = batch_with(target_lengths);
    for (const crnn::BatchShape& slice : driver::test_slices(shape_)) {
      const DeviceTensor<Real> statistics({2 * slice.frames * slice.samples});
      forward("loss without a gradient", logits, batch, slice, statistics, false);
    }
    const DeviceTensor<Real> saved({ctc::saved_elements(shape_)});
    forward("loss", logits, batch, shape_, saved, true);
    const std::vector<bool> valid = problem_.valid_lengths();
    const bool all_located = std::find(valid.begin(), valid.end(), false) == valid.end();
    if (problem_.padded || all_located) determinism_.expect_bitwise_equal("saved", saved);
    backward(logits, batch_with(changed_lengths), saved);
  }

 private:
  using Real = typename crnn::ComputeType<Storage>::Real;
  using State = ctc::PackedExtended<Real>;
  using Dimensions = std::vector<int64_t>;
  static constexpr bool kIsDouble = sizeof(Real) == sizeof(double);
  static constexpr double kTolerance = kIsDouble ? 1e-11 : 1e-5;
  // The relative rounding error of storing a number.
  static constexpr double kRounding = sizeof(Storage) >= sizeof(float)    ? 0
                                      : std::is_same_v<Storage, BFloat16> ? 0x1p-8
                                                                          : 0x1p-11;

  static crnn::TncView<const Storage> rows(const DeviceTensor<Storage>& tensor) {
    return {tensor.data(), tensor};
  }

  void forward(const char* name, const DeviceTensor<Storage>& logits, const crnn::DeviceBatch& batch,
               const crnn::BatchShape& slice, const DeviceTensor<Real>& saved, bool with_grad) {
    const DeviceTensor<State> emissions({ctc::emission_elements(slice)});
    const DeviceTensor<State> stored({ctc::stored_elements(slice, with_grad)});
    const DeviceTensor<State> states({ctc::state_elements(slice)});
    const DeviceTensor<double> terms({reduced_ ? shape_.samples : 0});
    const DeviceTensor<Real> loss({reduced_ ? 1 : shape_.samples});
    const ctc::RecursionBuffers<Real> memory{emissions.data(), stored.data(), states.data(),
                                             ctc::Saved<Real>(saved.data(), slice)};
    const ctc::LossOptions options{problem_.reduction, problem_.zero_infinity, with_grad};
    ctc::launch_forward<Storage, Real>(rows(logits), batch, problem_.normalize, slice, memory, options,
                                       loss.data(), terms.data(), kStream);
    expect_close(name, loss, expected_.loss, kTolerance);
    determinism_.expect_bitwise_equal(name, loss);
  }

  void backward(const DeviceTensor<Storage>& logits, const crnn::DeviceBatch& batch,
                const DeviceTensor<Real>& saved) {
    std::vector<Real> every_other(2 * grad_loss_.size());
    for (size_t n = 0; n < grad_loss_.size(); ++n) every_other[2 * n] = Real(grad_loss_[n]);
    const int64_t stride = reduced_ ? 0 : 2;
    const DeviceTensor<Real> grad_loss({int64_t(every_other.size())}, every_other);
    const DeviceTensor<Real> scales({shape_.samples});
    const DeviceTensor<ctc::Occurrence> occurrences({shape_.labels});
    // Larger than any element of a gradient.
    constexpr double kUnwritten = 1000;
    const driver::StridedLayout placement(problem_.gradient_layout, shape_.frames, shape_.samples,
                                          shape_.classes);
    const DeviceTensor<Storage> gradient =
        placement.tensor(std::vector<Storage>(logits_.size(), from_double<Storage>(kUnwritten)),
                         from_double<Storage>(kUnwritten));
    ctc::launch_ctc_loss_backward<Storage, Real>(
        rows(logits), crnn::TncView<Storage>(gradient.data(), gradient), batch, problem_.normalize,
        problem_.reduction, grad_loss.data(), stride, ctc::Saved<const Real>(saved.data(), shape_),
        scales.data(), occurrences.data(), kStream);

    double largest = 0;
    for (const double x : expected_.gradient) largest = std::fmax(largest, std::abs(x));
    expect_close("gradient", gradient, placement.to_storage(expected_.gradient, kUnwritten),
                 kRounding + kTolerance, kTolerance * largest + (kRounding > 0 ? 0x1p-24 : 0));
    determinism_.expect_bitwise_equal("gradient", gradient);
  }

  Problem problem_;
  crnn::BatchShape shape_;
  bool reduced_;
  std::vector<Storage> logits_;
  std::vector<double> grad_loss_;
  Expected expected_;
  driver::DeterminismCheck determinism_;
};

// Runs a problem. The Run is constructed on the first call.
template <class Storage>
std::function<void()> make_run(const Problem& problem) {
  return [problem, run = std::optional<Run<Storage>>()]() mutable {
    if (!run.has_value()) run.emplace(problem);
    (*run)();
  };
}

// ---- Cases ----

std::vector<driver::Case> cases() {
  std::vector<driver::Case> all;
  const auto add = [&](const std::string& name, std::function<void()> run) { all.push_back({name, run}); };
  using enum Layout;
  using enum Reduction;
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

  for (const int64_t pairs : {1, 2, 31, 33, 64, 128, 129, 257, 513})
    add(std::to_string(pairs) + " pairs", make_run<float>(problem_with_pairs(pairs)));
  for (const int64_t pairs : {32, 65, 256})
    add(std::to_string(pairs) + " pairs", make_run<double>(problem_with_pairs(pairs)));
  for (const int64_t pairs : {34, 130, 512, 513})
    add(std::to_string(pairs) + " pairs behind others", make_run<float>(second_sample_with_pairs(pairs)));
  add("short targets in a big block", make_run<float>({.frames = 128,
                                                       .classes = 9,
                                                       .samples = {{9, {1, 2, 2}},
                                                                   {40, labels_with_repeats(33, 9)},
                                                                   {80, labels_with_repeats(65, 9)},
                                                                   {1, {}}},
                                                       .padding = 70}));

  // The kernels hold at most `longest` labels per target.
  for (const bool padded : {false, true}) {
    add(padded ? "padded targets longer than the longest" : "targets longer than the longest",
        make_run<float>({.frames = 160,
                         .classes = 9,
                         .samples = {{150, labels_with_repeats(64, 9)},
                                     {9, {1, 2, 2}},
                                     {160, labels_with_repeats(63, 9)},
                                     {160, labels_with_repeats(140, 9)},
                                     {80, labels_with_repeats(20, 9)}},
                         .padded = padded,
                         .longest = 63}));
  }
  add("short targets with many labels in total", [] {
    Problem problem{.frames = 600, .classes = 9, .padded = false, .longest = 31};
    for (int64_t n = 0; n < 20; ++n) problem.samples.push_back({70, labels_with_repeats(31 - n % 2, 9)});
    if (problem.shape().max_labels() != 31 || ctc::state_elements(problem.shape()) != 0)
      throw std::runtime_error("the kernels are dispatched on the sum of the lengths");
    make_run<float>(problem)();
  });

  add("no frames", make_run<float>({.frames = 0, .classes = 4, .samples = {{0, {}}, {0, {1}}}}));
  add("1 frame",
      make_run<double>({.frames = 1, .classes = 4, .samples = {{1, {1}}, {1, {}}, {0, {}}, {0, {2}}}}));
  add("2 frames",
      make_run<float>({.frames = 2, .classes = 4, .samples = {{2, {3, 2}}, {2, {1}}, {1, {1}}, {2, {}}}}));
  add("odd and even frames",
      make_run<Half>({.frames = 12,
                      .classes = 5,
                      .samples = {{12, {1, 2}}, {11, {1, 2}}, {10, {4}}, {9, {}}, {3, {1, 2, 3}}}}));
  add("no samples", make_run<float>({.frames = 3, .classes = 4}));
  add("the mean of no samples", make_run<float>({.frames = 3, .classes = 4, .reduction = kMean}));
  add("the sum of no samples",
      make_run<double>({.frames = 3, .classes = 4, .reduction = kSum, .padded = false}));

  add("1 class", make_run<float>(problem_with_classes(1, 0, kContiguous, kContiguous)));
  add("2 classes", make_run<Half>(problem_with_classes(2, 1, kContiguous, kContiguous)));
  add("64 classes", make_run<BFloat16>(problem_with_classes(64, 63, kContiguous, kContiguous)));
  add("64 classes batch first", make_run<float>(problem_with_classes(64, 0, kBatchFirst, kBatchFirst)));
  add("65 classes in a slice", make_run<float>(problem_with_classes(65, 7, kSlice, kSlice)));
  add("65 classes from a slice", make_run<Half>(problem_with_classes(65, 0, kSlice, kContiguous)));
  add("1024 classes", make_run<double>(problem_with_classes(1024, 500, kContiguous, kContiguous)));
  add("1025 classes", make_run<float>(problem_with_classes(1025, 0, kContiguous, kBatchFirst)));
  add("1025 classes in a slice", make_run<BFloat16>(problem_with_classes(1025, 1024, kSlice, kSlice)));
  add("class stride", make_run<double>(problem_with_classes(20, 3, kClassStride, kClassStride)));

  add("two tiles of samples", make_run<float>(problem_with_many_samples(kMean)));
  add("a negative length in the second tile", make_run<float>(problem_with_many_samples(kNone, 270, -1)));
  add("a huge length in the first tile", make_run<float>(problem_with_many_samples(kNone, 250, kHuge)));
  add("padded invalid lengths",
      make_run<float>(
          {.frames = 5,
           .classes = 6,
           .samples = {{5, {1, 2}, -1}, {4, {1, 2}, 3}, {-1, {1}}, {6, {2}}, {5, {3, 3}}, {4, {1}, kHuge}}}));
  add("concatenated invalid lengths",
      make_run<float>({.frames = 5,
                       .classes = 6,
                       .samples = {{5, {1, 2}}, {6, {3}}, {4, {2, 4}}, {4, {5}, 7}, {5, {1}}},
                       .padded = false,
                       .wide = false}));
  add("lengths with a sum that is too large",
      make_run<double>(
          {.frames = 5, .classes = 6, .samples = {{4, {1, 2}}, {3, {4, 5}, 3}}, .padded = false}));
  // Lengths may change between the passes, so the backward pass must check them again.
  const std::vector<Sample> outgrown = {{4, {1, 2}}, {3, labels_with_repeats(200, 9), 2, 200}};
  add("concatenated lengths that outgrow the frames",
      make_run<float>({.frames = 4, .classes = 9, .samples = outgrown, .padded = false}));
  add("lengths that become invalid",
      make_run<float>({.frames = 4, .classes = 9, .samples = {outgrown[0], outgrown[1], {4, {3}, 1, -1}}}));
  const std::vector<Sample> wrong_labels = {{5, {1, -1}}, {4, {6, 1}},    {3, {2}},
                                            {5, {3, 1}},  {5, {1, 2, 3}}, {4, {(int64_t(1) << 32) + 1}}};
  add("invalid labels", make_run<float>({.frames = 5, .classes = 6, .samples = wrong_labels, .blank = 2}));
  add("concatenated invalid labels",
      make_run<float>({.frames = 5, .classes = 6, .samples = wrong_labels, .blank = 2, .padded = false}));

  // The longest target has more labels than the threads of a block hold.
  const std::vector<Sample> impossible = {
      {3, {1, 2, 3, 4}}, {3, {1, 1, 2}}, {4, {1, 1, 2}}, {0, {1}}, {4, {}}, {4, labels_with_repeats(200, 6)}};
  add("impossible targets", make_run<float>({.frames = 4, .classes = 6, .samples = impossible}));
  add("impossible targets ignored",
      make_run<BFloat16>(
          {.frames = 4, .classes = 6, .samples = impossible, .reduction = kMean, .zero_infinity = true}));
  add("repeated labels", make_run<float>({.frames = 90,
                                          .classes = 4,
                                          .samples = {{9, {1, 1}},
                                                      {8, {1, 2, 1}},
                                                      {90, std::vector<int64_t>(45, 3)},
                                                      {85, labels_with_repeats(70, 3)}},
                                          .padded = false,
                                          .padding = 1}));

  const std::vector<Sample> three = {{6, {1, 2}}, {6, {3}}, {5, {4, 4}}};
  add("masked classes",
      make_run<float>({.frames = 6,
                       .classes = 6,
                       .samples = {{6, {1, 2}}, {6, {3}}, {5, {4, 1}}, {3, {2, 3, 2}}, {4, {1}}},
                       .overrides = {{kAll, kAll, 5, -kInfinity},
                                     {2, 0, 1, -kInfinity},
                                     {kAll, 1, 3, -kInfinity},
                                     {kAll, 3, 0, -kInfinity},
                                     {3, 4, kAll, -kInfinity}}}));
  add("NaN and infinite logits", make_run<Half>({.frames = 6,
                                                 .classes = 6,
                                                 .samples = three,
                                                 .overrides = {{3, 0, 5, kNaN}, {0, 2, 4, kInfinity}}}));
  add("log_probs",
      make_run<float>({.frames = 6,
                       .classes = 6,
                       .samples = three,
                       .reduction = kSum,
                       .normalize = false,
                       .overrides = {{3, 0, 5, kNaN}, {2, 1, 3, 4.0}, {kAll, 2, 2, kInfinity}}}));
  add("log_probs that are too large",
      make_run<double>({.frames = 6,
                        .classes = 6,
                        .samples = three,
                        .normalize = false,
                        .overrides = {{5, 0, 2, 1e9}, {1, 1, 0, kNaN}, {0, 2, 1, 1e9}}}));

  constexpr unsigned kRandomCases = 12;
  for (unsigned seed = 1; seed <= kRandomCases; ++seed) {
    constexpr std::function<void()> (*kRuns[])(const Problem&) = {make_run<float>, make_run<double>,
                                                                  make_run<Half>, make_run<BFloat16>};
    add("random " + std::to_string(seed), kRuns[seed % 4](random_problem(seed)));
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  return driver::run(cases(), argc, argv);
}
