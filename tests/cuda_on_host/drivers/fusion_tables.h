// Random language models, lexicons and hot words, for the reference search and as tables for the kernels.
#pragma once

#include <optional>

#include "beam_search/fusion.h"
#include "drivers/driver.h"
#include "drivers/reference_beam_search.h"

namespace driver {

// ---- On the host ----

enum class LanguageModel { kNone, kOverTokens, kOverWords };

// The parts of the fusion in use.
struct FusionConfig {
  LanguageModel lm = LanguageModel::kNone;
  // Per sample: the score of unknown words, -inf to forbid them; nullopt for no lexicon.
  std::vector<std::optional<double>> lexicons = {};
  bool hotwords = false;
  double token_score = 0;

  bool enabled() const {
    return lm != LanguageModel::kNone || !lexicons.empty() || hotwords || token_score != 0;
  }
};

class Random {
 public:
  explicit Random(unsigned seed) : generator_(seed) {}

  int up_to(int most) { return int(generator_() % unsigned(most + 1)); }

  // A multiple of 1/8, so that sums are exact.
  double weight(double least, double most) { return least + up_to(int(8 * (most - least))) / 8.0; }

 private:
  std::mt19937 generator_;
};

using States = std::vector<reference::Automaton::State>;

// States have edges for all, some or no symbols, and fail to other states or to themselves.
inline reference::Automaton random_automaton(Random* random, int symbols, double most) {
  constexpr int kStates = 12;
  reference::Automaton automaton;
  for (int s = 0; s < kStates; ++s) {
    const auto weight = [&] { return random->weight(most - 3, most); };
    reference::Automaton::State state{{}, random->up_to(s), weight(), weight()};
    const int gap = std::vector<int>{0, 1, 7, symbols}[random->up_to(3)];
    for (int symbol = 0; symbol < symbols; symbol += 1 + random->up_to(gap))
      state.edges[symbol] = {random->up_to(kStates - 1), weight()};
    automaton.states.push_back(state);
  }
  return automaton;
}

// The largest weight of a step from any state.
inline double largest_step(const reference::Automaton& automaton, int symbols) {
  double largest = -kInfinity;
  for (int state = 0; state < int(automaton.states.size()); ++state) {
    for (int symbol = 0; symbol < symbols; ++symbol) {
      int at = state;
      largest = std::max(largest, automaton.step(&at, symbol));
    }
  }
  return largest;
}

// The lexicons of all samples, and their tries in one table of states.
struct Tries {
  std::vector<reference::Lexicon> lexicons;
  States states;
  std::vector<int32_t> word_of, roots;
  std::vector<double> unknown_scores;
};

class FusionTables {
 public:
  static constexpr int kWords = 40;

  FusionTables(const FusionConfig& fused, int classes, int blank, int64_t samples, unsigned seed)
      : fused_(fused), classes_(classes), separator_((blank + 1) % classes), random_(seed) {
    lm_symbols_ = fused.lm == LanguageModel::kOverWords ? kWords + 1 : classes;
    lm_ = random_automaton(&random_, lm_symbols_, 0);
    hotwords_ = random_automaton(&random_, classes, 3);
    lm_start_ = random_.up_to(int(lm_.states.size()) - 1);
    for (int64_t n = 0; n < samples; ++n) starts_.push_back(random_.up_to(int(hotwords_.states.size()) - 1));
    const std::vector<reference::Text> words = random_words(blank);
    for (int64_t n = 0; n < samples; ++n)
      add_lexicon(words, fused.lexicons.empty() ? std::nullopt : fused.lexicons[n]);
  }

  reference::Weights weights(int64_t n) const {
    reference::Weights weights;
    if (fused_.lm != LanguageModel::kNone) weights.lm = &lm_;
    weights.lm_start = lm_start_;
    weights.lm_over_words = fused_.lm == LanguageModel::kOverWords;
    weights.lm_weight = kLmWeight;
    if (has_lexicon(n)) weights.lexicon = &tries_.lexicons[n];
    weights.separator = separator_;
    weights.word_score = kWordScore;
    if (fused_.hotwords) weights.hotwords = &hotwords_;
    weights.hotwords_start = starts_[n];
    weights.hotword_weight = kHotwordWeight;
    weights.token_score = fused_.token_score;
    return weights;
  }

  // The tables in device memory.
  class DeviceTables;

 private:
  static constexpr double kLmWeight = 0.5, kHotwordWeight = 0.75, kWordScore = 0.25;

  bool has_lexicon(int64_t n) const { return !fused_.lexicons.empty() && fused_.lexicons[n].has_value(); }

  // Short words over few tokens, so that many share prefixes and the search finds them.
  std::vector<reference::Text> random_words(int blank) {
    reference::Text letters;
    for (int token = 0; token < classes_ && letters.size() < 8; ++token)
      if (token != blank && token != separator_) letters.push_back(token);
    std::vector<reference::Text> words(kWords);
    for (reference::Text& word : words)
      for (int left = 1 + random_.up_to(3); left > 0 && !letters.empty(); --left)
        word.push_back(letters[random_.up_to(int(letters.size()) - 1)]);
    return words;
  }

  // Adds a lexicon of about half of the words.
  void add_lexicon(const std::vector<reference::Text>& words, const std::optional<double>& unknown_score) {
    reference::Lexicon lexicon{{}, kWords, unknown_score.value_or(0)};
    const int root = int(tries_.states.size());
    States& states = tries_.states;
    const auto add_state = [&] {
      states.push_back({});
      tries_.word_of.push_back(-1);
      return int(states.size()) - 1;
    };
    add_state();
    states[root].edges[separator_] = {root, 0};
    for (int word = 0; word < kWords; ++word) {
      if (words[word].empty() || random_.up_to(1) == 0 || lexicon.words.contains(words[word])) continue;
      lexicon.words[words[word]] = word;
      int state = root;
      for (const int token : words[word]) {
        const bool is_there = states[state].edges.contains(token);
        const int next = is_there ? states[state].edges[token].state : add_state();
        states[state].edges[token] = {next, 0};
        state = next;
      }
      tries_.word_of[state] = word;
    }
    tries_.lexicons.push_back(lexicon);
    tries_.roots.push_back(unknown_score.has_value() ? root : crnn::beam_search::Lexicon::kNoLexicon);
    tries_.unknown_scores.push_back(lexicon.unknown_score);
  }

  FusionConfig fused_;
  int classes_, separator_, lm_symbols_, lm_start_;
  Random random_;
  reference::Automaton lm_, hotwords_;
  std::vector<int32_t> starts_;  // start state of the hot words per sample
  Tries tries_;
};

// ---- On the device ----

// One field of all states, or of all edges.
template <class T, class Of>
DeviceTensor<T> state_column(const States& states, const Of& of) {
  std::vector<T> column;
  for (const reference::Automaton::State& state : states) column.push_back(T(of(state)));
  return DeviceTensor<T>({int64_t(column.size())}, column);
}
template <class T, class Of>
DeviceTensor<T> edge_column(const States& states, const Of& of) {
  std::vector<T> column;
  for (const reference::Automaton::State& state : states)
    for (const auto& edge : state.edges) column.push_back(T(of(edge)));
  return DeviceTensor<T>({int64_t(column.size())}, column);
}

class DeviceEdges {
 public:
  explicit DeviceEdges(const States& states)
      : first_(firsts(states)),
        symbol_(edge_column<int32_t>(states, [](const auto& edge) { return edge.first; })),
        target_(edge_column<int32_t>(states, [](const auto& edge) { return edge.second.state; })) {}

  crnn::beam_search::Edges edges(int symbols) const {
    return {first_.data(), symbol_.data(), target_.data(), symbols};
  }

 private:
  static DeviceTensor<int32_t> firsts(const States& states) {
    std::vector<int32_t> firsts = {0};
    for (const reference::Automaton::State& state : states)
      firsts.push_back(firsts.back() + int32_t(state.edges.size()));
    return DeviceTensor<int32_t>({int64_t(firsts.size())}, firsts);
  }

  DeviceTensor<int32_t> first_, symbol_, target_;
};

class DeviceAutomaton {
 public:
  explicit DeviceAutomaton(const States& states)
      : edges_(states),
        edge_weight_(edge_column<float>(states, [](const auto& edge) { return edge.second.weight; })),
        fail_state_(state_column<int32_t>(states, [](const auto& state) { return state.fail_state; })),
        fail_weight_(state_column<float>(states, [](const auto& state) { return state.fail_weight; })),
        final_weight_(state_column<float>(states, [](const auto& state) { return state.final_weight; })) {}

  crnn::beam_search::Automaton automaton(int symbols) const {
    return {edges_.edges(symbols), edge_weight_.data(), fail_state_.data(), fail_weight_.data(),
            final_weight_.data()};
  }

 private:
  DeviceEdges edges_;
  DeviceTensor<float> edge_weight_;
  DeviceTensor<int32_t> fail_state_;
  DeviceTensor<float> fail_weight_, final_weight_;
};

class FusionTables::DeviceTables {
 public:
  explicit DeviceTables(const FusionTables& tables)
      : tables_(tables),
        lm_(tables.lm_.states),
        hotwords_(tables.hotwords_.states),
        hotwords_start_({int64_t(tables.starts_.size())}, tables.starts_),
        trie_(tables.tries_.states),
        word_of_({int64_t(tables.tries_.word_of.size())}, tables.tries_.word_of),
        roots_({int64_t(tables.tries_.roots.size())}, tables.tries_.roots),
        unknown_scores_({int64_t(tables.tries_.roots.size())}, tables.tries_.unknown_scores) {}

  crnn::beam_search::Fusion fusion() const {
    const FusionConfig& fused = tables_.fused_;
    crnn::beam_search::Fusion fusion{};
    fusion.lm_start = -1;
    fusion.token_score = fusion.largest = fused.token_score;
    double ending = 0;
    if (!fused.lexicons.empty()) {
      fusion.lexicon = {trie_.edges(tables_.classes_), word_of_.data(), roots_.data(), unknown_scores_.data(),
                        kWords};
      fusion.word_score = kWordScore;
      for (const double score : tables_.tries_.unknown_scores) ending = std::max(ending, score);
      fusion.largest += std::max(ending, kWordScore);
    }
    if (fused.lm != LanguageModel::kNone) {
      fusion.lm = lm_.automaton(tables_.lm_symbols_);
      fusion.lm_start = tables_.lm_start_;
      fusion.lm_over_words = fused.lm == LanguageModel::kOverWords;
      fusion.lm_weight = kLmWeight;
      const double largest = kLmWeight * largest_step(tables_.lm_, tables_.lm_symbols_);
      fusion.largest += fusion.lm_over_words ? std::max(0.0, largest) : largest;
    }
    if (fused.hotwords) {
      fusion.hotwords = hotwords_.automaton(tables_.classes_);
      fusion.hotwords_start = hotwords_start_.data();
      fusion.hotword_weight = kHotwordWeight;
      fusion.largest += kHotwordWeight * largest_step(tables_.hotwords_, tables_.classes_);
    }
    return fusion;
  }

 private:
  const FusionTables& tables_;
  DeviceAutomaton lm_, hotwords_;
  DeviceTensor<int32_t> hotwords_start_;
  DeviceEdges trie_;
  DeviceTensor<int32_t> word_of_, roots_;
  DeviceTensor<double> unknown_scores_;
};

}  // namespace driver
