// Prefix beam search as defined, on the host: texts are vectors and probabilities are plain numbers. Shares
// no code with csrc.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace reference {

using Text = std::vector<int>;
// Reaches down to e^-11000, and sums of powers of two are exact.
using Probability = long double;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// ---- Language models, lexicons and hot words ----

struct Automaton {
  struct Edge {
    int state;
    double weight;
  };
  struct State {
    std::map<int, Edge> edges;  // by symbol
    int fail_state;             // a state that fails to itself consumes any symbol and stays
    double fail_weight, final_weight;
  };
  std::vector<State> states;

  double step(int* at, int symbol) const {
    const State& state = states[*at];
    const auto edge = state.edges.find(symbol);
    if (edge != state.edges.end()) {
      *at = edge->second.state;
      return edge->second.weight;
    }
    if (state.fail_state == *at) return state.fail_weight;
    *at = state.fail_state;
    return state.fail_weight + step(at, symbol);
  }
};

struct Lexicon {
  std::map<Text, int> words;  // spelling to word number
  int unknown_word;           // the number of every other word
  double unknown_score;       // -inf forbids other words

  bool is_word_prefix(const Text& spelling) const {
    const auto next = words.lower_bound(spelling);
    return next != words.end() && next->first.size() >= spelling.size() &&
           std::equal(spelling.begin(), spelling.end(), next->first.begin());
  }
};

// Unused pointers are null.
struct Weights {
  const Automaton* lm = nullptr;
  int lm_start = 0;
  bool lm_over_words = false;
  double lm_weight = 0;
  const Lexicon* lexicon = nullptr;
  int separator = -1;  // the token between words
  double word_score = 0;
  const Automaton* hotwords = nullptr;
  int hotwords_start = 0;
  double hotword_weight = 0;
  double token_score = 0;

  double score(const Text& text, bool is_final) const {
    double sum = token_score * double(text.size());
    if (lm != nullptr && !lm_over_words) sum += lm_weight * path_weight(*lm, lm_start, text, is_final);
    if (hotwords != nullptr) sum += hotword_weight * path_weight(*hotwords, hotwords_start, text, is_final);
    Text words;
    if (lexicon != nullptr) sum += word_scores(text, is_final, &words);
    if (lm != nullptr && lm_over_words) sum += lm_weight * path_weight(*lm, lm_start, words, is_final);
    return sum;
  }

 private:
  static double path_weight(const Automaton& automaton, int state, const Text& text, bool is_final) {
    double sum = 0;
    for (const int symbol : text) sum += automaton.step(&state, symbol);
    return is_final ? sum + automaton.states[state].final_weight : sum;
  }

  // The score of the words; appends their numbers to `numbers`.
  double word_scores(const Text& text, bool is_final, Text* numbers) const {
    double sum = 0;
    Text word;
    const auto end_word = [&] {
      if (word.empty()) return;
      const auto known = lexicon->words.find(word);
      const bool is_known = known != lexicon->words.end();
      sum += is_known ? word_score : lexicon->unknown_score;
      numbers->push_back(is_known ? known->second : lexicon->unknown_word);
      word.clear();
    };
    for (const int token : text) {
      if (token == separator) {
        end_word();
      } else {
        word.push_back(token);
      }
    }
    if (is_final) {
      end_word();
    } else if (!word.empty() && !lexicon->is_word_prefix(word)) {
      sum += lexicon->unknown_score;
    }
    return sum;
  }
};

// ---- The search ----

struct Options {
  int blank;
  int64_t beam, nbest;
  int64_t token_top_k;
  double token_min_logp, beam_threshold;
  bool ties_are_exact = false;  // equal scores come from equal operations, so they round alike
};

struct Hypothesis {
  Text text;
  long double score, log_prob;
};

struct SearchResult {
  std::vector<Hypothesis> hypotheses;  // at most n-best
  // The smallest difference between two scores whose order affected the result. If it is tiny, a search with
  // larger rounding errors may return another result. 0 for a tie, unless ties are exact.
  double margin = kInfinity;
};

class Search {
 public:
  Search(const Options& options, const Weights& weights) : options_(options), weights_(weights) {}

  // rows: probabilities by frame and class
  SearchResult run(const std::vector<std::vector<Probability>>& rows) {
    beam_ = {{{}, 1, 0}};
    for (const std::vector<Probability>& row : rows) advance(row);
    SearchResult found;
    for (const Prefix& prefix : beam_) {
      const long double log_prob = std::log(prefix.total());
      found.hypotheses.push_back({prefix.text, log_prob + weights_.score(prefix.text, true), log_prob});
    }
    std::vector<Hypothesis>& best = found.hypotheses;
    std::erase_if(best, [](const Hypothesis& one) { return one.score == -kInfinity; });
    std::stable_sort(best.begin(), best.end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
    for (size_t i = 1; i < best.size() && int64_t(i) <= options_.nbest; ++i)
      update_margin(best[i].score, best[i - 1].score);
    if (int64_t(best.size()) > options_.nbest) best.resize(options_.nbest);
    found.margin = margin_;
    return found;
  }

 private:
  struct Prefix {
    Text text;
    Probability blank, label;  // of the paths that end in the blank, and in the last label

    Probability total() const { return blank + label; }
    Probability extendable_by(int token) const {
      return !text.empty() && text.back() == token ? blank : total();
    }
  };

  struct Candidate {
    long double score;
    bool is_new;
    int rank;  // in the previous beam: of the prefix itself, or of the one that a token extends
    int token;
    Probability blank, label;

    bool operator<(const Candidate& other) const {
      if (score != other.score) return score > other.score;
      return std::tuple(is_new, rank, token) < std::tuple(other.is_new, other.rank, other.token);
    }
  };

  void advance(const std::vector<Probability>& row) {
    std::map<Text, int> rank_of;
    for (size_t rank = 0; rank < beam_.size(); ++rank) rank_of[beam_[rank].text] = int(rank);
    std::vector<Candidate> candidates;
    const auto add = [&](const Text& text, const Candidate& candidate) {
      const Probability total = candidate.blank + candidate.label;
      if (total == 0) return;
      candidates.push_back(candidate);
      candidates.back().score = std::log(total) + weights_.score(text, false);
      if (candidates.back().score == -kInfinity) candidates.pop_back();
    };

    std::set<std::pair<int, int>> in_beam;  // (rank, token) pairs whose extension is itself in the beam
    for (size_t rank = 0; rank < beam_.size(); ++rank) {
      const Prefix& prefix = beam_[rank];
      Candidate stay{0, false, int(rank), -1, row[options_.blank] * prefix.total(), 0};
      if (!prefix.text.empty()) {
        const int last = prefix.text.back();
        Probability paths = prefix.label;
        const auto parent = rank_of.find(Text(prefix.text.begin(), prefix.text.end() - 1));
        if (parent != rank_of.end()) {
          paths += beam_[parent->second].extendable_by(last);
          in_beam.insert({parent->second, last});
        }
        stay.label = row[last] * paths;
      }
      add(prefix.text, stay);
    }
    for (const int token : extending_tokens(row)) {
      for (size_t rank = 0; rank < beam_.size(); ++rank) {
        if (in_beam.contains({int(rank), token})) continue;
        Text text = beam_[rank].text;
        text.push_back(token);
        add(text, {0, true, int(rank), token, 0, row[token] * beam_[rank].extendable_by(token)});
      }
    }

    std::sort(candidates.begin(), candidates.end());
    if (!candidates.empty()) prune_below(&candidates, candidates[0].score - options_.beam_threshold);
    if (int64_t(candidates.size()) > options_.beam) {
      const long double last = candidates[options_.beam - 1].score;
      for (size_t i = 0; i < candidates.size(); ++i)
        if (int64_t(i) != options_.beam - 1) update_margin(candidates[i].score, last);
      candidates.resize(options_.beam);
    }
    std::vector<Prefix> next;
    for (const Candidate& kept : candidates) {
      next.push_back({beam_[kept.rank].text, kept.blank, kept.label});
      if (kept.is_new) next.back().text.push_back(kept.token);
    }
    beam_ = std::move(next);
  }

  Text extending_tokens(const std::vector<Probability>& row) {
    Text tokens;
    for (int token = 0; token < int(row.size()); ++token)
      if (token != options_.blank && row[token] > 0) tokens.push_back(token);
    std::stable_sort(tokens.begin(), tokens.end(), [&](int a, int b) { return row[a] > row[b]; });
    if (int64_t(tokens.size()) > options_.token_top_k) tokens.resize(options_.token_top_k);
    std::erase_if(tokens, [&](int token) {
      const long double log_prob = std::log(row[token]);
      update_margin(log_prob, options_.token_min_logp);
      return log_prob < options_.token_min_logp;
    });
    return tokens;
  }

  void prune_below(std::vector<Candidate>* candidates, long double floor) {
    if (floor == -kInfinity) return;
    for (size_t i = 1; i < candidates->size(); ++i) update_margin((*candidates)[i].score, floor);
    std::erase_if(*candidates, [&](const Candidate& candidate) { return candidate.score < floor; });
  }

  void update_margin(long double score, long double edge) {
    if (score != edge || !options_.ties_are_exact)
      margin_ = std::min(margin_, double(std::abs(score - edge)));
  }

  const Options options_;
  const Weights weights_;
  std::vector<Prefix> beam_;  // by rank
  double margin_ = kInfinity;
};

}  // namespace reference
