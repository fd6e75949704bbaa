// Prefix beam search of one sample, on the host.
//
// A prefix that is in the beam stays in its slot; a frame adds its emissions to all slots in vectors, lists
// the extensions that can enter the beam, and puts those that do into the slots of the prefixes that drop
// out. The bound for entering is known before any extension is looked at: a full beam drops nothing that is
// better than its worst prefix. Most frames of a trained network let only few extensions pass.
#pragma once

#include <algorithm>
#include <cmath>

#include "beam_search/fusion.h"
#include "beam_search/options.h"
#include "beam_search/slots.h"
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
    const int64_t room = round_up_to_lanes(options.beam_size);
    now_.resize(room);
    next_.resize(room);
    incoming_.resize(room);
    logit_.resize(room);
    score_.resize(room);
    next_score_.resize(room);
    first_child_.resize(room);
    next_sibling_.resize(room);
    evicted_.resize(room);
    entries_.resize(room);
  }

  // The beam of sample n before its first frame: the empty prefix.
  void start(int64_t n) {
    sample_ = n;
    nodes_.assign(1, {kNone, int32_t(options_.blank)});
    ranked_.assign(1, 0);
    free_.clear();
    slots_ = 0;
    allocate_slot();
    entries_[0] = empty_prefix(options_.blank, fusion_.start(n));
    now_.put(0, {Extended<Real>::one(), Extended<Real>::zero(), Extended<Real>::one()});
    score_[0] = 0;
  }

  // row: (classes), with its statistics
  void process_frame(const Real* row, int64_t classes, Real row_max, Real inverse_sum) {
    advance(row, row_max, inverse_sum);
    update_ranks();
    collect_extensions(row, classes, row_max, inverse_sum);
    select();
    std::swap(now_, next_);
    std::swap(score_, next_score_);
    std::swap(ranked_, next_ranked_);
  }

  // The best hypotheses at the end of the text, best first.
  void finish(std::vector<Hypothesis>* hypotheses) const {
    hypotheses->clear();
    for (const int32_t slot : ranked_) {
      const BeamEntry<State>& entry = entries_[slot];
      const double log_prob = log2_of(now_.total.at(slot)) * kLn2;
      const double added = entry.added + fusion_.end(entry.state, sample_);
      if (added == -std::numeric_limits<double>::infinity()) continue;
      hypotheses->push_back({log_prob + added, log_prob, entry.node, entry.length});
    }
    std::stable_sort(hypotheses->begin(), hypotheses->end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
    if (int64_t(hypotheses->size()) > options_.nbest) hypotheses->resize(options_.nbest);
  }

  // tokens: (hypothesis.length)
  void spell(const Hypothesis& hypothesis, int64_t* tokens) const {
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
    Extended<Real> mass;
    State state;
    double added;
    int32_t slot;  // once it has one

    friend bool operator<(const Extension& a, const Extension& b) {
      if (a.score != b.score) return a.score > b.score;
      return a.rank != b.rank ? a.rank < b.rank : a.token < b.token;
    }
  };

  static double log2_of(Extended<Real> x) { return double(x.exponent) + std::log2(double(x.mantissa)); }

  double score_of(Extended<Real> mass, double order, double added) const {
    return Fusion::kHasFusion ? log2_of(mass) + added * kLog2E : order;
  }

  // 1. The probabilities of all prefixes in the beam after the frame.
  void advance(const Real* row, Real row_max, Real inverse_sum) {
    std::fill_n(first_child_.begin(), slots_, kNone);
    for (int32_t slot = 0; slot < slots_; ++slot) {
      const BeamEntry<State>& entry = entries_[slot];
      logit_[slot] = row[entry.last];
      const int32_t parent = entry.parent;
      if (parent == kNone) {
        incoming_.put(slot, Extended<Real>::zero());
      } else {
        incoming_.put(slot, extendable(parent, entry.last));
        next_sibling_[slot] = first_child_[parent];
        first_child_[parent] = slot;
      }
    }
    run_vectorized<AdvanceSlots<Real>>(int64_t(slots_), row[options_.blank], row_max, inverse_sum, now_,
                                       incoming_, logit_.data(), &next_);
  }

  Extended<Real> extendable(int32_t slot, int32_t token) const {
    return extendable_by(token, entries_[slot].last, now_.blank.at(slot), now_.total.at(slot));
  }

  // 2. Their scores and ranks. Few change places, and of equals the one that was before stays before.
  void update_ranks() {
    next_ranked_.clear();
    for (const int32_t slot : ranked_) {
      const double score = score_of(next_.total.at(slot), next_.order[slot], entries_[slot].added);
      next_score_[slot] = score;
      if (is_zero(next_.total.at(slot))) continue;
      size_t at = next_ranked_.size();
      next_ranked_.push_back(slot);
      for (; at > 0 && next_score_[next_ranked_[at - 1]] < score; --at)
        next_ranked_[at] = next_ranked_[at - 1];
      next_ranked_[at] = slot;
    }
  }

  // 3. The extensions that can enter the beam, best first.
  void collect_extensions(const Real* row, int64_t classes, Real row_max, Real inverse_sum) {
    extensions_.clear();
    if (ranked_.empty()) return;
    // What their scores have to exceed, and what they must not be below.
    const double threshold = is_full() ? next_score_[next_ranked_.back()] : kNoScore;
    double floor = next_ranked_.empty()
                       ? kNoScore
                       : score_floor<Fusion::kHasFusion>(next_score_[next_ranked_.front()], options_);

    const double gain = fusion_.largest_step() * kLog2E;
    const double best = score_[ranked_.front()] + gain + 2 * kApproxLog2Error;
    const int64_t most =
        minimum<int64_t>(options_.token_top_k, Fusion::kHasFusion ? classes : options_.beam_size + 1);
    const Real least = min_token_logit(maximum(threshold, floor) - best, row_max, inverse_sum, options_);
    const Real below_least = std::nextafter(least, -std::numeric_limits<Real>::infinity());
    const auto& tokens = token_selector_.select(row, classes, below_least, most, options_.blank);
    for (int64_t token_rank = 0; token_rank < int64_t(tokens.size()); ++token_rank) {
      const Real logit = tokens[token_rank].logit;
      const auto token = int32_t(tokens[token_rank].token);
      const Extended<Real> token_emission = normalized(emission(logit, row_max, inverse_sum));
      const double of_token =
          score_of(token_emission, approx_log2(token_emission), 0) + gain + 2 * kApproxLog2Error;
      // Both prefixes and tokens are ranked: if one cannot enter, those behind it cannot either.
      const auto is_hopeless = [&](int32_t slot) {
        const double most_possible = score_[slot] + of_token;
        return most_possible <= threshold || most_possible < floor;
      };
      if (is_hopeless(ranked_.front()) || is_zero(token_emission)) break;
      for (int32_t rank = 0; rank < int32_t(ranked_.size()); ++rank) {
        const int32_t slot = ranked_[rank];
        if (is_hopeless(slot) ||
            (!Fusion::kHasFusion && !can_enter_beam(rank, token_rank, options_.beam_size)))
          break;
        if (has_child(slot, token)) continue;
        const Extended<Real> mass = normalized(extendable(slot, token) * token_emission);
        if (is_zero(mass)) continue;
        Extension extension{0, slot, rank, token, mass, entries_[slot].state, entries_[slot].added, kNone};
        extension.added += fusion_.step(&extension.state, token, sample_);
        extension.score = score_of(mass, approx_log2(mass), extension.added);
        if (extension.score <= threshold || extension.score < floor) continue;
        extensions_.push_back(extension);
        if (int64_t(extensions_.size()) == 4 * int64_t(options_.beam_size)) floor = keep_best_extensions();
      }
    }
    if (int64_t(extensions_.size()) > options_.beam_size) keep_best_extensions();
    std::sort(extensions_.begin(), extensions_.end());
  }

  bool is_full() const { return int64_t(next_ranked_.size()) == options_.beam_size; }

  // Returns the score of the last one, which others have to reach.
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

  // 4. The next beam: the best of the prefixes and of the extensions, both sorted.
  void select() {
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
    // Before their parents' slots are used again.
    entering_.clear();
    for (const Extension& extension : extensions_) entering_.push_back(make_entry(extension));
    if (kept < int64_t(ranked_.size())) evict();
    for (int64_t i = 0; i < entering; ++i) enter(entering_[i], extensions_[i]);
    merge_ranks(kept);
  }

  BeamEntry<State> make_entry(const Extension& extension) {
    const BeamEntry<State>& parent = entries_[extension.parent];
    nodes_.push_back({parent.node, extension.token});
    return parent.extended(extension.parent, extension.token, int32_t(nodes_.size() - 1), extension.state,
                           extension.added);
  }

  // Empties the slots of the prefixes that are not among next_ranked_.
  void evict() {
    for (const int32_t slot : ranked_) evicted_[slot] = true;
    for (const int32_t slot : next_ranked_) evicted_[slot] = false;
    for (const int32_t slot : ranked_) {
      if (!evicted_[slot]) continue;
      entries_[slot].node = kNone;
      entries_[slot].parent = kNone;
      entries_[slot].last = int32_t(options_.blank);
      next_.put(slot, {Extended<Real>::zero(), Extended<Real>::zero(), Extended<Real>::zero()});
      free_.push_back(slot);
    }
    const auto forget_dropped = [&](BeamEntry<State>& entry) {
      if (entry.parent != kNone && evicted_[entry.parent]) entry.parent = kNone;
    };
    std::for_each(entries_.begin(), entries_.begin() + slots_, forget_dropped);
    std::for_each(entering_.begin(), entering_.end(), forget_dropped);
    for (const int32_t slot : ranked_) evicted_[slot] = false;
  }

  void enter(const BeamEntry<State>& entry, Extension& extension) {
    const int32_t slot = allocate_slot();
    entries_[slot] = entry;
    next_.put(slot, {Extended<Real>::zero(), extension.mass, extension.mass});
    next_score_[slot] = extension.score;
    extension.slot = slot;
    // Prefixes longer by a label may have stayed in the beam when this one had left it.
    for (int32_t other = 0; other < slots_; ++other) {
      BeamEntry<State>& child = entries_[other];
      if (child.parent_hash == entry.hash && child.node != kNone) child.parent = slot;
    }
  }

  int32_t allocate_slot() {
    if (free_.empty()) return slots_++;
    const int32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }

  // Puts the extensions, sorted, among the `kept` prefixes; of equals the prefix comes first.
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
  int32_t slots_ = 0;          // that are or were in use
  std::vector<int32_t> free_;  // those of them that are empty
  // By slot: before the frame, after it, and what is known of the prefix.
  PrefixProbabilities<Real> now_, next_;
  std::vector<double> score_, next_score_;
  std::vector<BeamEntry<State>> entries_;
  // Slots, best first.
  std::vector<int32_t> ranked_, next_ranked_;
  std::vector<Node> nodes_;

  // Of one frame. Lists of the prefixes in the beam that are one label longer than another: by slot.
  std::vector<int32_t> first_child_, next_sibling_;
  ExtendedArray<Real> incoming_;
  std::vector<Real> logit_;
  TokenSelector<Real> token_selector_;
  std::vector<Extension> extensions_;
  std::vector<BeamEntry<State>> entering_;
  std::vector<char> evicted_;
};

}  // namespace crnn::beam_search
