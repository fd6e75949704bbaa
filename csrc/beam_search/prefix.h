// Arithmetic of prefixes, for host and device.
#pragma once

#include <cmath>

#include "common/exp2.h"

namespace crnn::beam_search {

// The probability of a prefix after a frame: the sum over all paths that collapse to it, split by their last
// symbol.
template <class Value>
struct PrefixProbability {
  Extended<Value> blank;
  Extended<Value> label;  // paths that end in the prefix's last label; zero for the empty prefix
  Extended<Value> total;
};

// The probability of a prefix one frame later. `incoming`: probability of the paths of the parent prefix that
// the frame extends by the prefix's last label.
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

// The probability of a prefix's paths that a token extends. Repeating the last label requires a blank
// between.
template <class Value>
CRNN_INLINE Extended<Value> extendable_by(int32_t token, int32_t last, Extended<Value> blank,
                                          Extended<Value> total) {
  return token == last ? blank : total;
}

// True if an emission was 0; long products of small numbers are not zero.
template <class Value>
CRNN_INLINE bool is_zero(Extended<Value> x) {
  return x.exponent <= kVanishedExponent;
}

// A monotonic approximation of log2(x): the exponent plus (mantissa - 1). It is at most log2(x), and at least
// log2(x) - kApproxLog2Error.
template <class Value>
CRNN_INLINE auto approx_log2(Extended<Value> x) {
  using Doubles = Vector<double, kLanesOf<Value> * sizeof(double)>;
  return convert_lanes<Doubles>(x.exponent) + (convert_lanes<Doubles>(x.mantissa) - 1.0);
}
constexpr double kApproxLog2Error = 0.0861;

CRNN_INLINE double to_approx_log2(double log2) {
  const double whole = ::floor(log2);
  return whole + (::exp2(log2 - whole) - 1.0);
}

CRNN_INLINE double from_approx_log2(double approx) {
  const double whole = ::floor(approx);
  return whole + ::log2(1.0 + (approx - whole));
}

// Identifies a prefix; different prefixes collide with probability 2^-64. Each token is mixed in with the
// finalizer of SplitMix64, because a polynomial hash would collide on regular texts.
using PrefixHash = uint64_t;
constexpr PrefixHash kEmptyPrefix = 0;

CRNN_INLINE PrefixHash extend_hash(PrefixHash prefix, int32_t token) {
  PrefixHash x = prefix + 0x9e3779b97f4a7c15u * (PrefixHash(uint32_t(token)) + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Whether the extension of the prefix of rank i by the token of rank r (both from 0) can enter the beam, if
// prefixes are ranked by probability alone. A token then contributes the same factor to every prefix. So
// these extensions rank higher: those of the i better prefixes by the r + 1 best tokens, of which each prefix
// lacks at most one (its own last label, which extends only paths that end in a blank), and r - 1 of the same
// prefix. If they fill the beam, the extension cannot enter. A frame thus needs the best beam + 1 tokens and
// about beam * ln(beam) extensions.
CRNN_INLINE bool can_enter_beam(int64_t prefix_rank, int64_t token_rank, int64_t beam) {
  return (prefix_rank + 1) * token_rank <= beam;
}

constexpr int32_t kNone = -1;

// A prefix in the beam, without its probability.
template <class State>
struct BeamEntry {
  static_assert(sizeof(State) % sizeof(double) == 0, "copies would read uninitialized padding");
  PrefixHash hash;
  PrefixHash parent_hash;  // of the prefix without its last label
  int32_t parent;          // that prefix's index in the beam; kNone if it is not in the beam
  int32_t last;            // last label; the blank for the empty prefix
  int32_t node;            // in the tree of all prefixes
  int32_t length;
  State state;
  double fusion_score;  // of language model, lexicon and hot words so far; nats

  CRNN_INLINE BeamEntry extended(int32_t own_index, int32_t token, int32_t new_node, State new_state,
                                 double new_fusion_score) const {
    return {extend_hash(hash, token), hash, own_index, token, new_node, length + 1, new_state,
            new_fusion_score};
  }
};

template <class State>
CRNN_INLINE BeamEntry<State> empty_prefix(int64_t blank, State state) {
  return {kEmptyPrefix, 0, kNone, int32_t(blank), 0, 0, state, 0};
}

// A node of the tree of all prefixes that were ever in the beam: the parent's text plus a token. Node 0 is
// the empty prefix.
struct Node {
  int32_t parent;
  int32_t token;
};

}  // namespace crnn::beam_search
