// Extended-range numbers: a positive real stored as mantissa * 2^exponent, with the exponent in a separate
// integer.
//
// Probabilities of long alignments leave the range of float after a few dozen frames, and their logarithms
// lose precision as they grow (an ulp of 2,000 is 1e-4). A separate exponent avoids both: scaling is an exact
// integer operation, and nothing underflows.
//
// Zero is represented by the smallest number, 1 * 2^kZeroExponent. Adding it to anything larger changes no
// bit, so no operation needs a branch for it. Exponents are clamped there after each product; the distance to
// the limits of the integer leaves room for 2^26 frames of growth.
//
// Written once for host and device. Each function handles one number without branches, so that loops over
// arrays vectorize.
#pragma once

#include "common/simd.h"

namespace crnn {

// The bit layout of a mantissa's type, and the matching integer type.
template <class Value>
struct RealBits : RealBits<ElementOf<Value>> {
  using Int = Vector<typename RealBits<ElementOf<Value>>::Int, sizeof(Value)>;
};

template <>
struct RealBits<float> {
  using Int = int32_t;
  static constexpr int kFraction = 23;
  static constexpr int kBias = 127;
};

template <>
struct RealBits<double> {
  using Int = int64_t;
  static constexpr int kFraction = 52;
  static constexpr int kBias = 1023;
};

template <class Value>
using ExponentOf = typename RealBits<Value>::Int;

constexpr int32_t kZeroExponent = -(1 << 28);
// Products of a few numbers below 2^-(2^27) count as zero.
constexpr int32_t kVanishedExponent = -(1 << 27);

template <class Value>
struct Extended {
  using Int = ExponentOf<Value>;
  Value mantissa;  // in [1, 2) once normalized, otherwise any positive normal number
  Int exponent;

  static CRNN_INLINE Extended zero() { return {broadcast<Value>(1), broadcast<Int>(kZeroExponent)}; }
  static CRNN_INLINE Extended one() { return {broadcast<Value>(1), broadcast<Int>(0)}; }
};

// x * 2^steps by adding to the exponent's bits, without a range check.
template <class Value>
CRNN_INLINE Value ldexp_unchecked(Value x, ExponentOf<Value> steps) {
  // Shifting a negative number left is undefined before C++20; the product compiles to the same instruction.
  using Int = ExponentOf<Value>;
  return bit_cast<Value>(bit_cast<Int>(x) + steps * (ElementOf<Int>(1) << RealBits<Value>::kFraction));
}

// 2^exponent for exponents of normal numbers; 0 for the exponent below them.
template <class Value>
CRNN_INLINE Value power_of_two(ExponentOf<Value> exponent) {
  return ldexp_unchecked(broadcast<Value>(1), exponent);
}

// mantissa * 2^shift for a mantissa in [1, 2^60) and shift <= 0. Clamped to the normal range: a number that
// small is negligible next to a mantissa of at least 1.
template <class Value>
CRNN_INLINE Value ldexp_clamped(Value mantissa, ExponentOf<Value> shift) {
  using Int = ExponentOf<Value>;
  return ldexp_unchecked(mantissa, maximum(shift, broadcast<Int>(1 - RealBits<Value>::kBias)));
}

// Not normalized. The mantissa is in [1, 4) if both operands are normalized; one more addition is allowed.
template <class Value>
CRNN_INLINE Extended<Value> operator+(Extended<Value> a, Extended<Value> b) {
  const ExponentOf<Value> exponent = maximum(a.exponent, b.exponent);
  return {ldexp_clamped(a.mantissa, a.exponent - exponent) + ldexp_clamped(b.mantissa, b.exponent - exponent),
          exponent};
}

// Not normalized.
template <class Value>
CRNN_INLINE Extended<Value> operator*(Extended<Value> a, Extended<Value> b) {
  return {a.mantissa * b.mantissa, a.exponent + b.exponent};
}

template <class Value>
CRNN_INLINE Extended<Value> normalized(Extended<Value> a) {
  using Bits = RealBits<Value>;
  using Int = ExponentOf<Value>;
  using Word = ElementOf<Int>;
  const Int bits = bit_cast<Int>(a.mantissa);
  const Int fraction = bits & ((Word(1) << Bits::kFraction) - 1);
  const Int exponent = a.exponent + (bits >> Bits::kFraction) - Word(Bits::kBias);
  return {bit_cast<Value>(fraction | (Word(Bits::kBias) << Bits::kFraction)),
          maximum(exponent, broadcast<Int>(kZeroExponent))};
}

// The value as an ordinary number. Out of Real's range it becomes 0 or a large finite number.
template <class Value>
CRNN_INLINE Value to_real(Extended<Value> a) {
  using Bits = RealBits<Value>;
  using Int = ExponentOf<Value>;
  const Int exponent = minimum(a.exponent, broadcast<Int>(Bits::kBias - 4));
  return a.mantissa * power_of_two<Value>(maximum(exponent, broadcast<Int>(-Bits::kBias)));
}

}  // namespace crnn
