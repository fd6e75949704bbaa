// The two sides of the forward-backward recursion, for host and device.
//
// Recurrence, with p the emission of a frame and blank i standing before label i:
//   alpha'(blank i) = (alpha(blank i) + alpha(label i-1)) * p(blank)
//   alpha'(label i) = (alpha(label i) + alpha(blank i) + [label i != label i-1] alpha(label i-1))
//                     * p(label i)
// beta is the same recurrence from the last frame to the first with the labels in reverse; there the blank
// that comes before label i on the way is blank i+1. So one routine serves both sides.
//
// alpha walks up and beta walks down at the same time. In the middle they meet: the sum over the transitions
// between the two halves is P(target). Going on, each pass multiplies what it computes with what the other
// stored there, which is the posterior of every frame after T steps in all, with the label states of half the
// frames stored a pass. alpha counts a frame's emission and beta does not, so that the product counts it
// once.
#pragma once

#include "common/extended.h"

namespace crnn::forward_backward {

// What a pass does with the label states of a frame besides keeping them.
enum class PassMode { kDiscard, kStore, kCombine };

// P(target), as the meeting sides need it.
template <class Real>
struct Normalizer {
  Real inverse_mantissa;
  ExponentOf<Real> exponent;
};

// One sample as the recursion's kernel sees it, and the step that all its classes of sizes have in common.
//
// A pass works on pairs: a label and the blank before it in the pass's own direction. StatePair j has label j
// of the way; pair S has only the blank that comes last.

// An extended-range number in memory: one load, one store.
template <class Real>
struct alignas(2 * sizeof(Real)) PackedExtended {
  Extended<Real> value;
};

// A number whose exponent has not been clamped lately.
template <class Real>
CRNN_INLINE Extended<Real> clamped(Extended<Real> a) {
  return {a.mantissa, maximum<ExponentOf<Real>>(a.exponent, kZeroExponent)};
}

// What one sample's recursion reads and writes.
template <class Real>
struct SampleView {
  int64_t frames, length;
  const PackedExtended<Real>* emissions;  // (T, S + 1): the labels', then blank's
  PackedExtended<Real>* stored;  // (T, S): of each frame, the label states of the pass that saw it first
  Real* posterior;               // (T, S)

  // For label number `at` among those of all frames. factor: what a pass counts at a frame, alpha with its
  // emission, beta without; met: what the other pass has stored there.
  template <PassMode kMode>
  CRNN_INLINE void write(int64_t at, const Extended<Real>& factor, const Extended<Real>& other,
                         const Normalizer<Real>& total) const {
    if constexpr (kMode == PassMode::kStore) stored[at].value = clamped(factor);
    if constexpr (kMode == PassMode::kCombine) {
      const Extended<Real> joint = clamped(factor) * other;
      posterior[at] =
          to_real(Extended<Real>{joint.mantissa * total.inverse_mantissa, joint.exponent - total.exponent});
    }
  }
};

// The way of one pass through a sample.
struct Traversal {
  bool forward;
  int64_t frames, length;

  CRNN_INLINE int direction() const { return forward ? 1 : -1; }
  CRNN_INLINE int64_t frame(int64_t step) const { return forward ? step : frames - 1 - step; }
  // The target's index of the label of pair j.
  CRNN_INLINE int64_t label(int64_t j) const { return forward ? j : length - 1 - j; }
};

template <class Real>
struct StatePair {
  Extended<Real> blank, label;

  // Before the first frame a path stands on the blank from which both first states can be reached.
  static CRNN_INLINE StatePair before_first_frame(int64_t j) {
    return {j == 0 ? Extended<Real>::one() : Extended<Real>::zero(), Extended<Real>::zero()};
  }
};

// What flows into a pair at a frame, its emissions not counted. Mantissas are at least 1 and grow to three
// times the largest.
template <class Real>
CRNN_INLINE StatePair<Real> inflow(const StatePair<Real>& pair, const Extended<Real>& label_below,
                                   bool may_skip) {
  const auto& [blank, label] = pair;
  const ExponentOf<Real> skipping = may_skip ? label_below.exponent : ExponentOf<Real>(kZeroExponent);
  const ExponentOf<Real> exponent = maximum(maximum(blank.exponent, label.exponent), skipping);
  const Real mantissa = ldexp_clamped(label.mantissa, label.exponent - exponent) +
                        ldexp_clamped(blank.mantissa, blank.exponent - exponent) +
                        ldexp_clamped(label_below.mantissa, skipping - exponent);
  return {blank + label_below, {mantissa, exponent}};
}

// The same pair after the frame.
template <class Real>
CRNN_INLINE StatePair<Real> apply_emissions(const StatePair<Real>& before,
                                            const Extended<Real>& blank_emission,
                                            const Extended<Real>& label_emission) {
  return {before.blank * blank_emission, before.label * label_emission};
}

// The product of two states, in double.
template <class Real>
CRNN_INLINE Extended<double> multiply_in_double(const Extended<Real>& a, const Extended<Real>& b) {
  return Extended<double>{a.mantissa, a.exponent} * Extended<double>{b.mantissa, b.exponent};
}

}  // namespace crnn::forward_backward
