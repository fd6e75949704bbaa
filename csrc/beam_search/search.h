// Prefix beam search of one sample, on the host.
//
// A prefix keeps its slot as long as it is in the beam. A frame updates the probabilities of all slots in
// vectors, collects the extensions that can enter the beam, and stores those that do in the slots of evicted
// prefixes. The score that an extension must exceed is known beforehand: a full beam drops no prefix better
// than its worst one. In most frames of a trained network few extensions qualify.
#pragma once

#include <algorithm>
#include <cmath>

#include "beam_search/fusion.h"
#include "beam_search/options.h"
#include "beam_search/prefix_arrays.h"
#include "beam_search/token_selection.h"

namespace crnn::beam_search {

template <class Real, class Fusion>
class Search {
 public:
  using State = typename Fusion::State;

  struct Hypothesis {
    double score, log_prob;  // nats
    int32_t node;
    int32_t length;
  };

  Search(const Options& options, const Fusion& fusion) : options_(options), fusion_(fusion) {
    const int64_t capacity = round_up_to_lanes(options.beam_size);
    current_.resize(capacity);
    next_.resize(capacity);
    incoming_.resize(capacity);
    logit_.resize(capacity);
    score_.resize(capacity);
    next_score_.resize(capacity);
    first_child_.resize(capacity);
    next_sibling_.resize(capacity);
    evicted_.resize(capacity);
    entries_.resize(capacity);
  }

  // Resets the beam to the empty prefix for sample n.
  void start(int64_t n) {
    sample_ = n;
    nodes_.assign(1, {kNone, int32_t(options_.blank)});
    ranked_.assign(1, 0);
    free_slots_.clear();
    slots_ = 0;
    allocate_slot();
    entries_[0] = empty_prefix(options_.blank, fusion_.start(n));
    current_.set(0, {Extended<Real>::one(), Extended<Real>::zero(), Extended<Real>::one()});
    score_[0] = 0;
  }

  // row: (classes), with its statistics
  void process_frame(const Real* row, int64_t classes, Real row_max, Real inverse_sum) {
    advance(row, row_max, inverse_sum);
    update_ranks();
    collect_extensions(row, classes, row_max, inverse_sum);
    select_next_beam();
    std::swap(current_, next_);
    std::swap(score_, next_score_);
    std::swap(ranked_, next_ranked_);
  }

  // The n-best hypotheses after the last frame, best first.
  void finish(std::vector<Hypothesis>* hypotheses) const {
    hypotheses->clear();
    for (const int32_t slot : ranked_) {
      const BeamEntry<State>& entry = entries_[slot];
      const double log_prob = log2_of(current_.total.at(slot)) * kLn2;
      const double fusion_score = entry.fusion_score + fusion_.end(entry.state, sample_);
      if (fusion_score == -std::numeric_limits<double>::infinity()) continue;
      hypotheses->push_back({log_prob + fusion_score, log_prob, entry.node, entry.length});
    }
    std::stable_sort(hypotheses->begin(), hypotheses->end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
    if (int64_t(hypotheses->size()) > options_.nbest) hypotheses->resize(options_.nbest);
  }

  // tokens: (hypothesis.length)
  void write_tokens(const Hypothesis& hypothesis, int64_t* tokens) const {
    int32_t node = hypothesis.node;
    for (int64_t i = hypothesis.length - 1; i >= 0; --i, node = nodes_[node].parent)
      tokens[i] = nodes_[node].token;
  }

 private:
  struct Extension {
    double score;
    int32_t parent;  // slot
    int32_t rank;    // of the parent
    int32_t token;
    Extended<Real> probability;
    State state;
    double fusion_score;
    int32_t slot;  // kNone until it enters the beam

    friend bool operator<(const Extension& a, const Extension& b) {
      if (a.score != b.score) return a.score > b.score;
      return a.rank != b.rank ? a.rank < b.rank : a.token < b.token;
    }
  };

  static double log2_of(Extended<Real> x) { return double(x.exponent) + std::log2(double(x.mantissa)); }

  double score_of(Extended<Real> probability, double probability_log2, double fusion_score) const {
    return Fusion::kHasFusion ? log2_of(probability) + fusion_score * kLog2E : probability_log2;
  }

  // 1. Computes the probabilities of all prefixes in the beam after the frame.
  void advance(const Real* row, Real row_max, Real inverse_sum) {
    std::fill_n(first_child_.begin(), slots_, kNone);
    for (int32_t slot = 0; slot < slots_; ++slot) {
      const BeamEntry<State>& entry = entries_[slot];
      logit_[slot] = row[entry.last];
      const int32_t parent = entry.parent;
      if (parent == kNone) {
        incoming_.set(slot, Extended<Real>::zero());
      } else {
        incoming_.set(slot, extendable(parent, entry.last));
        next_sibling_[slot] = first_child_[parent];
        first_child_[parent] = slot;
      }
    }
    run_vectorized<AdvanceSlots<Real>>(int64_t(slots_), row[options_.blank], row_max, inverse_sum, current_,
                                       incoming_, logit_.data(), &next_);
  }

  Extended<Real> extendable(int32_t slot, int32_t token) const {
    return extendable_by(token, entries_[slot].last, current_.blank.at(slot), current_.total.at(slot));
  }

  // 2. Updates their scores and ranks by a stable insertion sort; few ranks change.
  void update_ranks() {
    next_ranked_.clear();
    for (const int32_t slot : ranked_) {
      const double score =
          score_of(next_.total.at(slot), next_.total_log2[slot], entries_[slot].fusion_score);
      next_score_[slot] = score;
      if (is_zero(next_.total.at(slot))) continue;
      size_t at = next_ranked_.size();
      next_ranked_.push_back(slot);
      for (; at > 0 && next_score_[next_ranked_[at - 1]] < score; --at)
        next_ranked_[at] = next_ranked_[at - 1];
      next_ranked_[at] = slot;
    }
  }

  // 3. Collects the extensions that can enter the beam, best first.
  void collect_extensions(const Real* row, int64_t classes, Real row_max, Real inverse_sum) {
    extensions_.clear();
    if (ranked_.empty()) return;
    // Scores must exceed `threshold` and reach `floor`.
    const double threshold = is_full() ? next_score_[next_ranked_.back()] : kNoScore;
    double floor = next_ranked_.empty()
                       ? kNoScore
                       : score_floor<Fusion::kHasFusion>(next_score_[next_ranked_.front()], options_);

    const double max_gain = fusion_.largest_step() * kLog2E;
    const double best = score_[ranked_.front()] + max_gain + 2 * kApproxLog2Error;
    const int64_t top_k =
        minimum<int64_t>(options_.token_top_k, Fusion::kHasFusion ? classes : options_.beam_size + 1);
    const Real min_logit = min_token_logit(maximum(threshold, floor) - best, row_max, inverse_sum, options_);
    const Real exclusive_bound = std::nextafter(min_logit, -std::numeric_limits<Real>::infinity());
    const auto& tokens = token_selector_.select(row, classes, exclusive_bound, top_k, options_.blank);
    for (int64_t token_rank = 0; token_rank < int64_t(tokens.size()); ++token_rank) {
      const Real logit = tokens[token_rank].logit;
      const auto token = int32_t(tokens[token_rank].token);
      const Extended<Real> token_emission = normalized(emission(logit, row_max, inverse_sum));
      const double max_token_score =
          score_of(token_emission, approx_log2(token_emission), 0) + max_gain + 2 * kApproxLog2Error;
      // Prefixes and tokens are sorted: if one cannot enter the beam, no later one can.
      const auto cannot_enter = [&](int32_t slot) {
        const double max_score = score_[slot] + max_token_score;
        return max_score <= threshold || max_score < floor;
      };
      if (cannot_enter(ranked_.front()) || is_zero(token_emission)) break;
      for (int32_t rank = 0; rank < int32_t(ranked_.size()); ++rank) {
        const int32_t slot = ranked_[rank];
        if (cannot_enter(slot) ||
            (!Fusion::kHasFusion && !can_enter_beam(rank, token_rank, options_.beam_size)))
          break;
        if (has_child(slot, token)) continue;
        const Extended<Real> probability = normalized(extendable(slot, token) * token_emission);
        if (is_zero(probability)) continue;
        Extension extension{
            0, slot, rank, token, probability, entries_[slot].state, entries_[slot].fusion_score, kNone};
        extension.fusion_score += fusion_.step(&extension.state, token, sample_);
        extension.score = score_of(probability, approx_log2(probability), extension.fusion_score);
        if (extension.score <= threshold || extension.score < floor) continue;
        extensions_.push_back(extension);
        if (int64_t(extensions_.size()) == 4 * int64_t(options_.beam_size)) floor = keep_best_extensions();
      }
    }
    if (int64_t(extensions_.size()) > options_.beam_size) keep_best_extensions();
    std::sort(extensions_.begin(), extensions_.end());
  }

  bool is_full() const { return int64_t(next_ranked_.size()) == options_.beam_size; }

  // Keeps beam_size extensions and returns the lowest score, which later ones must reach.
  double keep_best_extensions() {
    const auto last = extensions_.begin() + (options_.beam_size - 1);
    std::nth_element(extensions_.begin(), last, extensions_.end());
    extensions_.resize(options_.beam_size);
    return extensions_.back().score;
  }

  bool has_child(int32_t slot, int32_t token) const {
    for (int32_t child = first_child_[slot]; child != kNone; child = next_sibling_[child])
      if (entries_[child].last == token) return true;
    return false;
  }

  // 4. Selects the next beam from the sorted prefixes and the sorted extensions.
  void select_next_beam() {
    int64_t kept = next_ranked_.size(), entering = extensions_.size();
    const auto last_kept = [&] { return next_score_[next_ranked_[kept - 1]]; };
    const auto last_entering = [&] { return extensions_[entering - 1].score; };
    while (kept + entering > options_.beam_size)
      --(entering > 0 && last_entering() <= last_kept() ? entering : kept);
    if (kept + entering > 0) {
      const double floor =
          score_floor<Fusion::kHasFusion>(maximum(kept > 0 ? next_score_[next_ranked_.front()] : kNoScore,
                                                  entering > 0 ? extensions_.front().score : kNoScore),
                                          options_);
      while (kept > 0 && last_kept() < floor) --kept;
      while (entering > 0 && last_entering() < floor) --entering;
    }
    next_ranked_.resize(kept);
    extensions_.resize(entering);
    // Built before the slots of their parents are reused.
    new_entries_.clear();
    for (const Extension& extension : extensions_) new_entries_.push_back(make_entry(extension));
    if (kept < int64_t(ranked_.size())) evict();
    for (int64_t i = 0; i < entering; ++i) insert(new_entries_[i], extensions_[i]);
    merge_ranks(kept);
  }

  BeamEntry<State> make_entry(const Extension& extension) {
    const BeamEntry<State>& parent = entries_[extension.parent];
    nodes_.push_back({parent.node, extension.token});
    return parent.extended(extension.parent, extension.token, int32_t(nodes_.size() - 1), extension.state,
                           extension.fusion_score);
  }

  // Frees the slots of prefixes that are not in next_ranked_.
  void evict() {
    for (const int32_t slot : ranked_) evicted_[slot] = true;
    for (const int32_t slot : next_ranked_) evicted_[slot] = false;
    for (const int32_t slot : ranked_) {
      if (!evicted_[slot]) continue;
      entries_[slot].node = kNone;
      entries_[slot].parent = kNone;
      entries_[slot].last = int32_t(options_.blank);
      next_.set(slot, {Extended<Real>::zero(), Extended<Real>::zero(), Extended<Real>::zero()});
      free_slots_.push_back(slot);
    }
    const auto clear_evicted_parent = [&](BeamEntry<State>& entry) {
      if (entry.parent != kNone && evicted_[entry.parent]) entry.parent = kNone;
    };
    std::for_each(entries_.begin(), entries_.begin() + slots_, clear_evicted_parent);
    std::for_each(new_entries_.begin(), new_entries_.end(), clear_evicted_parent);
    for (const int32_t slot : ranked_) evicted_[slot] = false;
  }

  void insert(const BeamEntry<State>& entry, Extension& extension) {
    const int32_t slot = allocate_slot();
    entries_[slot] = entry;
    next_.set(slot, {Extended<Real>::zero(), extension.probability, extension.probability});
    next_score_[slot] = extension.score;
    extension.slot = slot;
    // If this prefix returns to the beam, its children may still be there.
    for (int32_t other = 0; other < slots_; ++other) {
      BeamEntry<State>& child = entries_[other];
      if (child.parent_hash == entry.hash && child.node != kNone) child.parent = slot;
    }
  }

  int32_t allocate_slot() {
    if (free_slots_.empty()) return slots_++;
    const int32_t slot = free_slots_.back();
    free_slots_.pop_back();
    return slot;
  }

  // Merges the sorted extensions into the ranks of the `kept` prefixes; in a tie the prefix comes first.
  void merge_ranks(int64_t kept) {
    int64_t entering = extensions_.size();
    next_ranked_.resize(kept + entering);
    for (int64_t at = kept + entering - 1; entering > 0; --at) {
      const bool from_kept =
          kept > 0 && next_score_[next_ranked_[kept - 1]] < extensions_[entering - 1].score;
      next_ranked_[at] = from_kept ? next_ranked_[--kept] : extensions_[--entering].slot;
    }
  }

  static constexpr double kNoScore = -std::numeric_limits<double>::infinity();

  const Options options_;
  const Fusion fusion_;
  int64_t sample_ = 0;
  int32_t slots_ = 0;                // used so far, including free ones
  std::vector<int32_t> free_slots_;  // freed and not reused yet
  // By slot; current_ and score_ are before the frame, next_ and next_score_ after it.
  PrefixProbabilities<Real> current_, next_;
  std::vector<double> score_, next_score_;
  std::vector<BeamEntry<State>> entries_;
  // Slots, best first.
  std::vector<int32_t> ranked_, next_ranked_;
  std::vector<Node> nodes_;

  // Valid during one frame. Linked lists of each prefix's children in the beam, by slot.
  std::vector<int32_t> first_child_, next_sibling_;
  ExtendedArray<Real> incoming_;
  std::vector<Real> logit_;
  TokenSelector<Real> token_selector_;
  std::vector<Extension> extensions_;
  std::vector<BeamEntry<State>> new_entries_;
  std::vector<char> evicted_;
};

}  // namespace crnn::beam_search
