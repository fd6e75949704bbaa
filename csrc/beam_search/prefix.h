// The arithmetic of prefixes, for host and device.
#pragma once

#include <cmath>

#include "common/exp2.h"

namespace crnn::beam_search {

// The probability of a prefix: of all paths that spell it up to a frame, split by what they end in.
template <class Value>
struct PrefixProbability {
  Extended<Value> blank;
  Extended<Value> label;  // the prefix's last label; zero for the empty prefix
  Extended<Value> total;
};

// One frame updated. `incoming`: of the paths to which the frame adds the prefix's last label, the
// probability.
template <class Value>
CRNN_INLINE PrefixProbability<Value> advance_prefix(Extended<Value> total, Extended<Value> label,
                                                    Extended<Value> incoming, Extended<Value> blank_emission,
                                                    Extended<Value> label_emission) {
  PrefixProbability<Value> next;
  next.blank = normalized(total * blank_emission);
  next.label = normalized((label + incoming) * label_emission);
  next.total = normalized(next.blank + next.label);
  return next;
}

// The paths of a prefix that a token extends: its own last label needs a blank between.
template <class Value>
CRNN_INLINE Extended<Value> extendable_by(int32_t token, int32_t last, Extended<Value> blank,
                                          Extended<Value> total) {
  return token == last ? blank : total;
}

// Is it the probability of nothing? Where an emission was 0, not a number that has become small.
template <class Value>
CRNN_INLINE bool is_zero(Extended<Value> mass) {
  return mass.exponent <= kVanishedExponent;
}

// What orders numbers as they are themselves: the exponent, and the mantissa's distance to 1. Not above the
// number's binary logarithm, and below it by at most kApproxLog2Error.
template <class Value>
CRNN_INLINE auto approx_log2(Extended<Value> mass) {
  using Doubles = Vector<double, kLanesOf<Value> * sizeof(double)>;
  return convert_lanes<Doubles>(mass.exponent) + (convert_lanes<Doubles>(mass.mantissa) - 1.0);
}
constexpr double kApproxLog2Error = 0.0861;

CRNN_INLINE double to_approx_log2(double log2) {
  const double whole = ::floor(log2);
  return whole + (::exp2(log2 - whole) - 1.0);
}

CRNN_INLINE double from_approx_log2(double order) {
  const double whole = ::floor(order);
  return whole + ::log2(1.0 + (order - whole));
}

// A prefix is known by this number: equal for equal prefixes, and different for others but for a chance of
// 2^-64. Each token mixes it anew (the finaliser of SplitMix64), since a polynomial in the tokens would
// collide on regular texts.
using PrefixHash = uint64_t;
constexpr PrefixHash kEmptyPrefix = 0;

CRNN_INLINE PrefixHash extend_hash(PrefixHash prefix, int32_t token) {
  PrefixHash x = prefix + 0x9e3779b97f4a7c15u * (PrefixHash(uint32_t(token)) + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Where prefixes are ranked by probability alone, a token by which one of them is extended counts as much for
// all. Then before the extension of the prefix of rank i by the token of rank r, both from 0, come those of
// the i prefixes above by r + 1 tokens, of which each has to leave out one at most (its own last label, which
// continues only paths that end in a blank), and likewise r - 1 of its own. If they fill the beam, it cannot
// enter. So a frame needs the best beam + 1 tokens, and about beam * ln(beam) extensions.
CRNN_INLINE bool can_enter_beam(int64_t prefix_rank, int64_t token_rank, int64_t beam) {
  return (prefix_rank + 1) * token_rank <= beam;
}

constexpr int32_t kNone = -1;

// What is known of a prefix in the beam besides its mass.
template <class State>
struct BeamEntry {
  static_assert(sizeof(State) % sizeof(double) == 0, "copies would read padding, which nobody has written");
  PrefixHash hash;
  PrefixHash parent_hash;  // of the prefix without its last label
  int32_t parent;          // where that prefix is in the beam; kNone if it is not there
  int32_t last;            // the last label; of the empty prefix, the blank
  int32_t node;            // in the tree of all prefixes
  int32_t length;
  State state;
  double added;  // by language model, lexicon and hot words so far; nats

  CRNN_INLINE BeamEntry extended(int32_t at, int32_t token, int32_t its_node, State its_state,
                                 double its_added) const {
    return {extend_hash(hash, token), hash, at, token, its_node, length + 1, its_state, its_added};
  }
};

template <class State>
CRNN_INLINE BeamEntry<State> empty_prefix(int64_t blank, State state) {
  return {kEmptyPrefix, 0, kNone, int32_t(blank), 0, 0, state, 0};
}

// All prefixes that were ever in the beam: each is its parent's and one token more. Node 0 is the empty one.
struct Node {
  int32_t parent;
  int32_t token;
};

}  // namespace crnn::beam_search
