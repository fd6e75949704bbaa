// 2^x for real x without a call into the math library, for scalars and vectors.
//
// The exponent is split into the nearest integer and a rest in [-1/2, 1/2]. 2^rest is a polynomial: the
// Taylor series of exp(rest * ln 2), truncated where the next term is below one ulp.
#pragma once

#include "common/extended_range.h"

namespace crnn {

constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// 2^x for |x| <= 1/2. Relative error: 1e-7 in float (including the final rounding of one ulp), 4e-16 in
// double.
template <class Value>
CRNN_INLINE Value exp2_fraction(Value x) {
  if constexpr (std::is_same_v<ElementOf<Value>, float>) {
    Value y = x * 1.5403530e-4f + 1.3333558e-3f;
    y = y * x + 9.6181291e-3f;
    y = y * x + 5.5504109e-2f;
    y = y * x + 2.4022651e-1f;
    y = y * x + 6.9314718e-1f;
    return y * x + 1.0f;
  } else {
    const Value u = x * kLn2;
    Value y = u * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
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
}

// Adding this constant rounds to an integer: the sum has no fraction bits, and its low bits are the integer.
template <class Real>
constexpr Real kRoundingShift = Real(1.5) * Real(int64_t(1) << RealBits<Real>::kFraction);

// 2^x for x <= 0 as an ordinary number: exactly 0 below the normal range and for -inf, NaN for NaN.
template <class Value>
CRNN_INLINE Value exp2_nonpositive(Value x) {
  using Real = ElementOf<Value>;
  // One below the smallest exponent of a normal number: its power of two is 0. This argument order propagates
  // NaN.
  const Value clamped = maximum(broadcast<Value>(-RealBits<Real>::kBias), x);
  const Value shifted = clamped + kRoundingShift<Real>;
  const Value rest = clamped - (shifted - kRoundingShift<Real>);
  const auto whole = bit_cast<ExponentOf<Value>>(shifted) - bit_cast<ExponentOf<Real>>(kRoundingShift<Real>);
  // A product instead of an addition to the exponent's bits: it propagates NaN.
  return exp2_fraction(rest) * power_of_two<Value>(whole);
}

// 2^x as an extended-range number, for any x below 2^28; zero for x below -2^28. x is double whatever Value
// is: its integer part may be large, and its fraction matters.
template <class Value, class Double>
CRNN_INLINE Extended<Value> exp2_extended(Double x) {
  const Double clamped = maximum(x, broadcast<Double>(kZeroExponent));
  const Double shifted = clamped + kRoundingShift<double>;
  const Value rest = convert_lanes<Value>(clamped - (shifted - kRoundingShift<double>));
  const auto whole = bit_cast<ExponentOf<Double>>(shifted) - bit_cast<int64_t>(kRoundingShift<double>);
  return {exp2_fraction(rest), convert_lanes<ExponentOf<Value>>(whole)};
}

}  // namespace crnn
