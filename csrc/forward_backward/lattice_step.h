// The forward-backward recurrence, for host and device.
//
// p is the emission of a frame, and blank i precedes label i:
//   alpha'(blank i) = (alpha(blank i) + alpha(label i-1)) * p(blank)
//   alpha'(label i) = (alpha(label i) + alpha(blank i) + [label i != label i-1] alpha(label i-1))
//                     * p(label i)
// The backward pass, beta, uses the same recurrence from the last frame to the first with the labels in
// reverse order; there blank i+1 precedes label i. One routine therefore serves both passes.
//
// The two passes run at the same time, alpha forward and beta backward. In the middle, the sum over the
// transitions between the two halves is the total probability P(target). Each pass then continues to the
// other end and multiplies its states with those that the other pass stored, which gives the posteriors of
// all frames. That takes T steps in all, and each pass stores the label states of half of the frames. alpha
// includes the emission of a frame and beta does not, so their product counts it once.
#pragma once

#include "common/extended_range.h"

namespace crnn::forward_backward {

// What a pass does with the label states of a frame: nothing, store them for the other pass, or combine them
// with those of the other pass into posteriors.
enum class PassMode { kDiscard, kStore, kCombine };

// P(target), in the form that the posteriors need.
template <class Real>
struct Normalizer {
  Real inverse_mantissa;
  ExponentOf<Real> exponent;
};

// The types and steps below are shared by the device passes.
//
// A pass works on pairs: a label and the blank that precedes it in the direction of the pass. Pair j has the
// j-th label in that direction; pair S has only the last blank.

// An extended-range number that is loaded and stored in one access.
template <class Real>
struct alignas(2 * sizeof(Real)) PackedExtended {
  Extended<Real> value;
};

// Clamps an exponent that may have fallen below zero's since the last normalization.
template <class Real>
CRNN_INLINE Extended<Real> clamped(Extended<Real> a) {
  return {a.mantissa, maximum<ExponentOf<Real>>(a.exponent, kZeroExponent)};
}

// What the recursion of one sample reads and writes.
template <class Real>
struct SampleView {
  int64_t frames, length;
  const PackedExtended<Real>* emissions;  // (T, S + 1): labels, then blank
  PackedExtended<Real>* stored;           // (T, S): label states of the pass that visits the frame first
  Real* posterior;                        // (T, S)

  // at: index into (T, S). factor: the pass's own label state; alpha includes the emission of the frame, beta
  // does not. other: the state stored by the other pass.
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

// The order in which a pass visits the frames and labels of a sample.
struct Traversal {
  bool forward;
  int64_t frames, length;

  CRNN_INLINE int direction() const { return forward ? 1 : -1; }
  CRNN_INLINE int64_t frame(int64_t step) const { return forward ? step : frames - 1 - step; }
  // Index in the target of the label of pair j.
  CRNN_INLINE int64_t label(int64_t j) const { return forward ? j : length - 1 - j; }
};

template <class Real>
struct StatePair {
  Extended<Real> blank, label;

  // Before the first frame, a path is in the blank from which both first states can be reached.
  static CRNN_INLINE StatePair before_first_frame(int64_t j) {
    return {j == 0 ? Extended<Real>::one() : Extended<Real>::zero(), Extended<Real>::zero()};
  }
};

// The inflow into a pair at a frame, without the emissions. Mantissas are at least 1 and grow to at most
// three times the largest.
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

// The states of the pair after the frame.
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
