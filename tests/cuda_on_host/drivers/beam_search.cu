// The beam_search operator.
#include <numeric>

#include "beam_search/kernels.cuh"
#include "drivers/beam_search_problems.h"
#include "drivers/reference_beam_search.h"

namespace {

namespace beam = crnn::beam_search;
using namespace driver::search;
using crnn::BFloat16;
using crnn::Half;
using driver::DeviceTensor;
using driver::expect_close;
using driver::from_double;
using driver::kAll;
using driver::kInfinity;
using driver::kNaN;
using driver::LanguageModel;
using driver::Layout;

// ---- Reference ----

struct Expected {
  std::vector<int64_t> tokens, lengths;
  std::vector<double> scores, log_probs;
  double margin = kInfinity;

  void add(const reference::Text& text, int64_t frames, double score, double log_prob) {
    tokens.insert(tokens.end(), text.begin(), text.end());
    tokens.resize(tokens.size() + frames - text.size(), -1);
    lengths.push_back(int64_t(text.size()));
    scores.push_back(score);
    log_probs.push_back(log_prob);
  }
  void add_missing(int64_t frames, double score) {
    add({}, frames, score, score);
    lengths.back() = -1;
  }
};

// Empty if the row is unusable.
template <class Storage>
std::vector<reference::Probability> probabilities(const Problem& problem, const Storage* row) {
  const double least_unusable = problem.normalize ? kInfinity : double(1 << 26) / double(problem.frames);
  double peak = -kInfinity;
  for (int c = 0; c < problem.classes; ++c) {
    if (!(driver::to_double(row[c]) < least_unusable)) return {};
    peak = std::max(peak, driver::to_double(row[c]));
  }
  if (!problem.normalize || peak == -kInfinity) peak = 0;
  std::vector<reference::Probability> p;
  for (int c = 0; c < problem.classes; ++c)
    p.push_back(std::exp(reference::Probability(driver::to_double(row[c])) - peak));
  const auto sum = std::accumulate(p.begin(), p.end(), reference::Probability(0));
  if (problem.normalize && sum > 0)
    for (reference::Probability& x : p) x /= sum;
  return p;
}

template <class Storage>
Expected reference_search(const Problem& problem, const std::vector<Storage>& logits,
                          const driver::FusionTables& tables) {
  Expected expected;
  for (int64_t n = 0; n < problem.samples(); ++n) {
    std::vector<std::vector<reference::Probability>> rows;
    bool usable = problem.is_possible(n);
    for (int64_t t = 0; usable && t < problem.lengths[n]; ++t) {
      rows.push_back(probabilities(problem, &logits[(t * problem.samples() + n) * problem.classes]));
      usable = !rows.back().empty();
    }
    reference::SearchResult found;
    if (usable) {
      const reference::Options options{
          problem.blank,          problem.beam,           problem.nbest,           problem.token_top_k,
          problem.token_min_logp, problem.beam_threshold, problem.ties_are_exact()};
      found = reference::Search(options, tables.weights(n)).run(rows);
    }
    for (int64_t k = 0; k < problem.nbest; ++k) {
      if (k < int64_t(found.hypotheses.size())) {
        const reference::Hypothesis& hypothesis = found.hypotheses[k];
        expected.add(hypothesis.text, problem.frames, double(hypothesis.score), double(hypothesis.log_prob));
      } else {
        expected.add_missing(problem.frames, usable ? -kInfinity : kNaN);
      }
    }
    expected.margin = std::min(expected.margin, found.margin);
  }
  return expected;
}

// ---- The kernels ----

// A problem with its logits and expected results.
template <class Storage>
class Run {
 public:
  // Increases the seed until rounding errors cannot affect the result.
  explicit Run(const Problem& problem)
      : problem_(problem),
        tables_(problem.fused, problem.classes, problem.blank, problem.samples(), problem.seed) {
    constexpr unsigned kNextSeed = 1000, kMaxSeeds = 100;
    for (;; problem_.seed += kNextSeed) {
      logits_ = logits_of<Storage>(problem_);
      expected_ = reference_search(problem_, logits_, tables_);
      if (expected_.margin > kClear) return;
      if (problem_.seed >= kNextSeed * kMaxSeeds) throw std::runtime_error("no seed has a clear result");
    }
  }

  void operator()() {
    if (problem_.fused.enabled()) {
      const driver::FusionTables::DeviceTables tables(tables_);
      search(tables.fusion());
    } else {
      search(beam::NoFusion{});
    }
  }

 private:
  using Real = typename crnn::ComputeType<Storage>::Real;
  static constexpr bool kIsDouble = sizeof(Real) == sizeof(double);
  static constexpr double kTolerance = kIsDouble ? 1e-12 : 1e-5;
  static constexpr double kClear = kIsDouble ? 1e-10 : 2e-5;

  template <class Fusion>
  void search(const Fusion& fusion) {
    using State = typename Fusion::State;
    const int64_t frames = problem_.frames, samples = problem_.samples(), classes = problem_.classes;
    const int64_t beam = problem_.beam, nbest = problem_.nbest, rows = frames * samples;
    const beam::Options options{beam,
                                nbest,
                                problem_.blank,
                                problem_.normalize,
                                std::min(problem_.token_top_k, classes),
                                problem_.token_min_logp,
                                problem_.beam_threshold};
    const int64_t shortlist_size = beam::choose_shortlist_size<Fusion>(options, classes);

    const DeviceTensor<Storage> logits = driver::StridedLayout(problem_.layout, frames, samples, classes)
                                             .tensor(logits_, from_double<Storage>(kNaN));
    const DeviceTensor<int64_t> input_lengths({samples}, problem_.lengths);
    const DeviceTensor<Real> row_max({rows}), inverse_sum({rows});
    const DeviceTensor<beam::Token<Real>> shortlist({rows * shortlist_size});
    const DeviceTensor<beam::BeamEntry<State>> entries({samples * 2 * beam});
    const DeviceTensor<beam::PrefixProbability<Real>> probabilities({samples * 2 * beam}),
        updated({samples * beam});
    const DeviceTensor<beam::Node> nodes({rows * beam});
    const DeviceTensor<int32_t> all_tokens({shortlist_size == 0 ? samples * classes : 0});
    const DeviceTensor<int64_t> tokens({samples, nbest, frames}), lengths({samples, nbest});
    const DeviceTensor<Real> scores({samples, nbest}), log_probs({samples, nbest});

    const beam::SearchParams<Storage, Real, Fusion> problem{
        crnn::TncView<const Storage>(logits.data(), logits),
        crnn::IndexView(input_lengths),
        frames,
        int32_t(classes),
        options,
        fusion,
        {row_max.data(), inverse_sum.data(), shortlist.data(), int(shortlist_size)},
        {entries.data(), probabilities.data(), updated.data(), nodes.data(), all_tokens.data()},
        {tokens.data(), lengths.data(), scores.data(), log_probs.data()}};
    beam::launch_beam_search(problem, samples, {nullptr, "beam_search"});

    expect_close("tokens", tokens, expected_.tokens);
    expect_close("lengths", lengths, expected_.lengths);
    expect_close("scores", scores, expected_.scores, kTolerance);
    expect_close("log_probs", log_probs, expected_.log_probs, kTolerance);
    determinism_.expect_bitwise_equal("scores", scores);
    determinism_.expect_bitwise_equal("log_probs", log_probs);
  }

  Problem problem_;
  driver::FusionTables tables_;
  std::vector<Storage> logits_;
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
  using enum RowKind;
  const std::vector<int64_t> two = {5, 4};

  add("1 class", make_run<float>({.frames = 3, .classes = 1, .lengths = {3, 0}, .beam = 3}));
  add("2 classes",
      make_run<double>({.frames = 6, .classes = 2, .lengths = {6, 0, 4}, .beam = 4, .blank = 1}));
  add("9 classes", make_run<Half>({.frames = 5, .classes = 9, .lengths = two, .beam = 5}));
  add("40 classes", make_run<BFloat16>({.frames = 5, .classes = 40, .lengths = two, .beam = 5, .blank = 39}));
  add("no frames", make_run<float>({.frames = 0, .classes = 4, .lengths = {0, 0}, .beam = 3, .nbest = 2}));
  add("no samples", make_run<float>({.frames = 3, .classes = 4, .lengths = {}, .beam = 3}));
  add("invalid lengths", make_run<float>({.frames = 4, .classes = 5, .lengths = {5, -1, 4}, .beam = 3}));
  add("fewer texts than nbest", make_run<double>({.frames = 2, .classes = 3, .lengths = {2, 1}, .beam = 20}));

  add("a beam of 1", make_run<float>({.frames = 9, .classes = 7, .lengths = {9, 8}, .beam = 1}));
  add("a beam of 2", make_run<float>({.frames = 9, .classes = 7, .lengths = {9, 8}, .beam = 2}));
  add("prefixes that reenter the beam",
      make_run<double>({.frames = 24, .classes = 3, .lengths = {24}, .beam = 6, .scale = 1}));
  add("a beam of 16", make_run<float>({.frames = 9, .classes = 30, .lengths = {9, 0, 7}, .beam = 16}));
  add("a beam of 64", make_run<double>({.frames = 5, .classes = 70, .lengths = two, .beam = 64, .blank = 7}));
  add("a beam of 65", make_run<float>({.frames = 5, .classes = 20, .lengths = two, .beam = 65}));
  add("a beam of 200",
      make_run<float>({.frames = 3, .classes = 300, .lengths = {3}, .beam = 200, .layout = kSlice}));
  // The shortlist has one token more: as many as a block has threads, and one more than that.
  add("a beam of 255",
      make_run<Half>({.frames = 2, .classes = 300, .lengths = {2}, .beam = 255, .nbest = 3}));
  add("a beam of 256", make_run<float>({.frames = 2, .classes = 300, .lengths = {2}, .beam = 256}));
  add("a beam of 512", make_run<float>({.frames = 3, .classes = 60, .lengths = {3}, .beam = 512}));
  add("a beam of 1024", make_run<double>({.frames = 2, .classes = 40, .lengths = {2}, .beam = 1024}));

  add("all prefixes are extended", make_run<float>(problem_with_all_extended()));
  add("approximate logarithms with a smaller sum", make_run<float>(problem_with_inexact_logarithms()));
  add("the last extension that enters", make_run<float>(problem_with_last_extension(1, 2)));
  add("the last extension that enters in a later round",
      make_run<float>(problem_with_last_extension(20, 16)));

  add("batch first",
      make_run<float>({.frames = 5, .classes = 70, .lengths = two, .beam = 10, .layout = kBatchFirst}));
  add("class stride",
      make_run<Half>({.frames = 5, .classes = 30, .lengths = two, .beam = 6, .layout = kClassStride}));
  add("slice", make_run<BFloat16>(
                   {.frames = 5, .classes = 30, .lengths = two, .beam = 6, .nbest = 2, .layout = kSlice}));
  add("log_probs",
      make_run<float>({.frames = 6,
                       .classes = 20,
                       .lengths = {6, 5, 6},
                       .beam = 10,
                       .normalize = false,
                       .overrides = {{kAll, 0, 2, 3.5}, {2, 1, 3, 40}, {2, 2, 4, double(1 << 26) / 6}}}));
  add("probabilities beyond those of numbers",
      make_run<float>({.frames = 6, .classes = 20, .lengths = {6, 5}, .beam = 10, .scale = 300}));

  // If the best come last, the top-k selection compacts again and again.
  add("ascending rows",
      make_run<float>(
          {.frames = 2, .classes = 3000, .lengths = {2}, .beam = 16, .nbest = 5, .rows = kAscending}));
  // The maximum number of tokens that a block holds.
  add("ascending rows and a beam of 1024",
      make_run<double>({.frames = 1, .classes = 2100, .lengths = {1}, .beam = 1024, .rows = kAscending}));
  add("ascending rows with a gap", make_run<float>(problem_with_partial_push()));
  add("descending rows", make_run<Half>({.frames = 2,
                                         .classes = 700,
                                         .lengths = {2},
                                         .beam = 100,
                                         .nbest = 3,
                                         .blank = 699,
                                         .rows = kDescending}));
  add("even rows",
      make_run<float>({.frames = 6, .classes = 9, .lengths = {6, 5}, .beam = 20, .rows = kUniform}));
  add("even rows of 2048 classes",
      make_run<float>(
          {.frames = 3, .classes = 2048, .lengths = {3, 2}, .beam = 70, .blank = 1000, .rows = kUniform}));
  add("even rows and a beam of 300",
      make_run<Half>({.frames = 3, .classes = 40, .lengths = {3}, .beam = 300, .rows = kUniform}));

  add("masked classes", make_run<float>({.frames = 5,
                                         .classes = 8,
                                         .lengths = {5, 5, 5, 5, 4, 5},
                                         .beam = 12,
                                         .overrides = {{kAll, kAll, 5, -kInfinity},
                                                       {3, 1, 0, -kInfinity},
                                                       {kAll, 2, 0, -kInfinity},
                                                       {0, 3, kAll, -kInfinity},
                                                       {3, 4, kAll, -kInfinity},
                                                       {2, 5, kAll, -kInfinity},
                                                       {2, 5, 0, 0}}}));
  add("NaN and infinite logits",
      make_run<float>({.frames = 5,
                       .classes = 7,
                       .lengths = {5, 5, 5, 3},
                       .beam = 6,
                       .nbest = 2,
                       .overrides = {{4, 0, 6, kNaN}, {0, 1, 4, kInfinity}, {2, 2, 0, kNaN}}}));
  add("the best token alone",
      make_run<float>({.frames = 6, .classes = 30, .lengths = {6, 5}, .beam = 10, .token_top_k = 1}));
  // Strided classes are loaded one by one, and the best ones lie in different threads.
  add("the best 3 of 300 tokens besides the blank", make_run<float>({.frames = 3,
                                                                     .classes = 300,
                                                                     .lengths = {3},
                                                                     .beam = 20,
                                                                     .token_top_k = 3,
                                                                     .overrides = {{kAll, kAll, 0, 9}},
                                                                     .layout = kClassStride}));
  add("the best 3 tokens",
      make_run<Half>(
          {.frames = 6, .classes = 12, .lengths = {6, 5}, .beam = 10, .token_top_k = 3, .rows = kUniform}));
  add("probable tokens",
      make_run<float>({.frames = 6, .classes = 30, .lengths = {6, 5}, .beam = 30, .token_min_logp = -2}));
  for (const double threshold : {0.0, 0.5, 4.0})
    add("a threshold of " + std::to_string(threshold).substr(0, 3),
        make_run<float>(
            {.frames = 6, .classes = 30, .lengths = {6, 5, 6}, .beam = 30, .beam_threshold = threshold}));

  add("language model", make_run<float>({.frames = 6,
                                         .classes = 40,
                                         .lengths = {6, 0, 5},
                                         .beam = 20,
                                         .fused = {.lm = LanguageModel::kOverTokens}}));
  add("language model over listed tokens",
      make_run<double>({.frames = 5,
                        .classes = 300,
                        .lengths = {5},
                        .beam = 64,
                        .token_top_k = 7,
                        .fused = {.lm = LanguageModel::kOverTokens, .hotwords = true}}));
  add("strict lexicon", make_run<float>({.frames = 9,
                                         .classes = 10,
                                         .lengths = {9, 8},
                                         .beam = 20,
                                         .fused = {.lexicons = {-kInfinity, -kInfinity}},
                                         .scale = 1}));
  add("lexicons and no lexicon", make_run<double>({.frames = 7,
                                                   .classes = 10,
                                                   .lengths = {7, 6, 7, 5},
                                                   .beam = 20,
                                                   .blank = 9,
                                                   .fused = {.lexicons = {-kInfinity, -1, std::nullopt, 0.5}},
                                                   .scale = 1}));
  add("language model over words",
      make_run<float>({.frames = 9,
                       .classes = 8,
                       .lengths = {9, 8, 7},
                       .beam = 20,
                       .fused = {.lm = LanguageModel::kOverWords, .lexicons = {-kInfinity, -1, std::nullopt}},
                       .scale = 1}));
  add("hot words",
      make_run<float>(
          {.frames = 7, .classes = 10, .lengths = {7, 6}, .beam = 20, .fused = {.hotwords = true}}));
  add("everything at once and a beam of 257",
      make_run<double>({.frames = 3,
                        .classes = 30,
                        .lengths = {3, 3, 2},
                        .beam = 257,
                        .beam_threshold = 9,
                        .fused = {.lm = LanguageModel::kOverTokens,
                                  .lexicons = {-kInfinity, -1, std::nullopt},
                                  .hotwords = true,
                                  .token_score = 0.5}}));
  add("even rows and a language model", make_run<float>({.frames = 4,
                                                         .classes = 600,
                                                         .lengths = {4, 3},
                                                         .beam = 40,
                                                         .fused = {.lm = LanguageModel::kOverTokens},
                                                         .rows = kUniform}));
  add("ascending rows and hot words", make_run<double>({.frames = 2,
                                                        .classes = 600,
                                                        .lengths = {2},
                                                        .beam = 70,
                                                        .fused = {.hotwords = true},
                                                        .rows = kAscending}));

  constexpr unsigned kRandomCases = 20;
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
