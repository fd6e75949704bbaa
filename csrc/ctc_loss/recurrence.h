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
// between the two halves is P(target). Going on, each side multiplies what it computes with what the other
// stored there, which is the posterior of every frame after T steps in all, with the label states of half the
// frames stored a side. alpha counts a frame's emission and beta does not, so that the product counts it
// once.
#pragma once

#include "common/extended.h"

namespace crnn::ctc_loss {

// What a side does with the label states of a frame besides keeping them.
enum class PassMode { kDiscard, kStore, kCombine };

// P(target), as the meeting sides need it.
template <class Real>
struct Normalizer {
  Real inverse_mantissa;
  ExponentOf<Real> exponent;
};

}  // namespace crnn::ctc_loss
