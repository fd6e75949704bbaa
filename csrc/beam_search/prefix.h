// The arithmetic of prefixes, for host and device.
#pragma once

#include "common/extended.h"

namespace crnn::beam_search {

// The probability of a prefix: of all paths that spell it up to a frame, split by what they end in.
template <class Value>
struct Mass {
  Extended<Value> blank;
  Extended<Value> label;  // the prefix's last label; zero for the empty prefix
  Extended<Value> total;
};

// One frame later. `arriving`: of the paths to which the frame adds the prefix's last label, the probability.
template <class Value>
CRNN_INLINE Mass<Value> after_frame(Extended<Value> total, Extended<Value> label, Extended<Value> arriving,
                                    Extended<Value> blank_emission, Extended<Value> label_emission) {
  Mass<Value> next;
  next.blank = normalised(total * blank_emission);
  next.label = normalised((label + arriving) * label_emission);
  next.total = normalised(next.blank + next.label);
  return next;
}

// Is it the probability of nothing? Where an emission was 0, not a number that has become small.
template <class Value>
CRNN_INLINE bool has_vanished(Extended<Value> mass) {
  return mass.exponent <= kVanishedExponent;
}

// What orders numbers as they are themselves: the exponent, and the mantissa's distance to 1. Not above the
// number's binary logarithm, and below it by at most kOrderSlack.
template <class Value>
CRNN_INLINE auto order_of(Extended<Value> mass) {
  using Doubles = Vector<double, kLanesOf<Value> * sizeof(double)>;
  return converted<Doubles>(mass.exponent) + (converted<Doubles>(mass.mantissa) - 1.0);
}
constexpr double kOrderSlack = 0.0861;

// A prefix is known by this number: equal for equal prefixes, and different for others but for a chance of
// 2^-64. Each token mixes it anew (the finaliser of SplitMix64), since a polynomial in the tokens would
// collide on regular texts.
using Identity = uint64_t;
constexpr Identity kEmptyPrefix = 0;

CRNN_INLINE Identity extended_by(Identity prefix, int32_t token) {
  Identity x = prefix + 0x9e3779b97f4a7c15u * (Identity(uint32_t(token)) + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Where prefixes are ranked by probability alone, a token by which one of them is extended counts as much for
// all. Then before the extension of the prefix of rank i by the token of rank r, both from 0, come those of
// the i prefixes above by r + 1 tokens, of which each has to leave out one at most (its own last label, which
// continues only paths that end in a blank), and likewise r - 1 of its own. If they fill the beam, it cannot
// enter. So a frame needs the best beam + 1 tokens, and about beam * ln(beam) extensions.
CRNN_INLINE bool may_enter(int64_t prefix_rank, int64_t token_rank, int64_t beam) {
  return (prefix_rank + 1) * token_rank <= beam;
}

}  // namespace crnn::beam_search
