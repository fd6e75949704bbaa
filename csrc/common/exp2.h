// Powers of two with a real exponent, without a call into the maths library: every loop around them
// vectorises on every instruction set.
//
// The exponent is split into the nearest integer and a rest in [-1/2, 1/2]; 2^rest is a polynomial
// (the Taylor series of exp(rest * ln 2), cut where its next term is below an ulp).
#pragma once

#include "common/extended.h"

namespace crnn {

constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// 2^x for |x| <= 1/2: relative error 1e-7 in float (one ulp of the result included), 4e-16 in double.
CRNN_INLINE float exp2_fraction(float x) {
  float y = 1.5403530e-4f;
  y = y * x + 1.3333558e-3f;
  y = y * x + 9.6181291e-3f;
  y = y * x + 5.5504109e-2f;
  y = y * x + 2.4022651e-1f;
  y = y * x + 6.9314718e-1f;
  return y * x + 1.0f;
}

CRNN_INLINE double exp2_fraction(double x) {
  const double u = x * kLn2;
  double y = 1.0 / 6227020800.0;
  y = y * u + 1.0 / 479001600.0;
  y = y * u + 1.0 / 39916800.0;
  y = y * u + 1.0 / 3628800.0;
  y = y * u + 1.0 / 362880.0;
  y = y * u + 1.0 / 40320.0;
  y = y * u + 1.0 / 5040.0;
  y = y * u + 1.0 / 720.0;
  y = y * u + 1.0 / 120.0;
  y = y * u + 1.0 / 24.0;
  y = y * u + 1.0 / 6.0;
  y = y * u + 0.5;
  y = y * u + 1.0;
  return y * u + 1.0;
}

// Adding this number leaves no room for a fraction: the sum's low bits are the nearest integer.
template <class Real>
constexpr Real kRoundingShift = Real(1.5) * Real(int64_t(1) << RealBits<Real>::kFraction);

// 2^x for x <= 0 as an ordinary number: exactly 0 below the normal range (and for -inf), NaN for NaN.
template <class Real>
CRNN_INLINE Real exp2_nonpositive(Real x) {
  using Int = ExponentOf<Real>;
  constexpr Real kSmallest = Real(1 - RealBits<Real>::kBias);
  const Real clamped = x < kSmallest ? kSmallest : x;
  const Real shifted = clamped + kRoundingShift<Real>;
  const Real rest = clamped - (shifted - kRoundingShift<Real>);
  const Int whole = bit_cast<Int>(shifted) - bit_cast<Int>(kRoundingShift<Real>);
  // A product, not an addition to the exponent's bits: NaN has to stay NaN.
  const Real value = exp2_fraction(rest) * power_of_two<Real>(whole);
  return x < kSmallest ? Real(0) : value;
}

// 2^x as an extended-range number, for any x below 2^28; anything under -2^28 is zero. The exponent comes
// in double, whatever Real is: its integer part may be large, and the digits behind it count.
template <class Real>
CRNN_INLINE Extended<Real> exp2_extended(double x) {
  const double clamped = x < double(kZeroExponent) ? double(kZeroExponent) : x;
  const double shifted = clamped + kRoundingShift<double>;
  const Real rest = Real(clamped - (shifted - kRoundingShift<double>));
  // The low 32 bits of the shifted number are the integer, in two's complement.
  return {exp2_fraction(rest), ExponentOf<Real>(int32_t(bit_cast<int64_t>(shifted)))};
}

}  // namespace crnn
