// Extended-range numbers: a positive real kept as mantissa * 2^exponent, the exponent in an integer of its
// own.
//
// Probabilities of long alignments leave the range of float after a few dozen frames, and their logarithms
// lose digits as they grow (an ulp of 2,000 is 1e-4). Mantissa and exponent side by side lose neither:
// scaling is an integer operation and therefore exact, and nothing ever underflows.
//
// Zero is the smallest number, 1 * 2^kZeroExponent: adding it to anything larger changes no bit, so that
// no operation needs a branch for it. Exponents are clamped there after each product; the distance to the
// limits of the integer leaves room for 2^26 frames of growth.
//
// Written once for host and device. Each function works on one number and has no branch, so that a loop over
// an array of them vectorises.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#ifdef __CUDACC__
#define CRNN_HOST_DEVICE __host__ __device__
#else
#define CRNN_HOST_DEVICE
#endif
#define CRNN_INLINE CRNN_HOST_DEVICE inline __attribute__((always_inline))

namespace crnn {

// The bit layout of the two mantissa types, and the integers that go with them.
template <class Real>
struct RealBits;

template <>
struct RealBits<float> {
  using Int = int32_t;
  static constexpr int kFraction = 23;
  static constexpr Int kBias = 127;
};

template <>
struct RealBits<double> {
  using Int = int64_t;
  static constexpr int kFraction = 52;
  static constexpr Int kBias = 1023;
};

template <class Real>
using ExponentOf = typename RealBits<Real>::Int;

constexpr int32_t kZeroExponent = -(1 << 28);
// Products of a few numbers below this are zero for every purpose: 2^-(2^27).
constexpr int32_t kVanishedExponent = -(1 << 27);

template <class To, class From>
CRNN_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T>
CRNN_INLINE T larger(T a, T b) {
  return a > b ? a : b;
}

template <class T>
CRNN_INLINE T smaller(T a, T b) {
  return a < b ? a : b;
}

template <class Real>
struct Extended {
  using Int = ExponentOf<Real>;
  Real mantissa;  // in [1, 2) once normalised, a positive normal number otherwise
  Int exponent;

  static CRNN_INLINE Extended zero() { return {Real(1), kZeroExponent}; }
  static CRNN_INLINE Extended one() { return {Real(1), 0}; }
};

// 2^exponent, exponent within the range of normal numbers.
template <class Real>
CRNN_INLINE Real power_of_two(ExponentOf<Real> exponent) {
  using Bits = RealBits<Real>;
  return bit_cast<Real>((exponent + Bits::kBias) << Bits::kFraction);
}

// mantissa * 2^shift for a mantissa in [1, 8) and shift <= 0. What falls below the smallest normal number
// stays there: next to a mantissa of at least 1 it is nothing.
template <class Real>
CRNN_INLINE Real shifted_down(Real mantissa, ExponentOf<Real> shift) {
  using Bits = RealBits<Real>;
  using Int = ExponentOf<Real>;
  const Int steps = larger<Int>(shift, 1 - Bits::kBias);
  // A shift to the left of a negative number is undefined before C++20; the product is the same instruction.
  return bit_cast<Real>(bit_cast<Int>(mantissa) + steps * (Int(1) << Bits::kFraction));
}

// Not normalised: the mantissa is in [1, 4) for two normalised numbers, and may be added to once more.
template <class Real>
CRNN_INLINE Extended<Real> operator+(Extended<Real> a, Extended<Real> b) {
  const ExponentOf<Real> exponent = larger(a.exponent, b.exponent);
  return {shifted_down(a.mantissa, a.exponent - exponent) + shifted_down(b.mantissa, b.exponent - exponent),
          exponent};
}

// Not normalised.
template <class Real>
CRNN_INLINE Extended<Real> operator*(Extended<Real> a, Extended<Real> b) {
  return {a.mantissa * b.mantissa, a.exponent + b.exponent};
}

template <class Real>
CRNN_INLINE Extended<Real> normalised(Extended<Real> a) {
  using Bits = RealBits<Real>;
  using Int = ExponentOf<Real>;
  const Int bits = bit_cast<Int>(a.mantissa);
  const Int fraction = bits & ((Int(1) << Bits::kFraction) - 1);
  const Int exponent = a.exponent + (bits >> Bits::kFraction) - Bits::kBias;
  return {bit_cast<Real>(fraction | (Bits::kBias << Bits::kFraction)), larger<Int>(exponent, kZeroExponent)};
}

// The value as an ordinary number; outside the range of Real it becomes 0, or a large finite number.
template <class Real>
CRNN_INLINE Real to_real(Extended<Real> a) {
  using Bits = RealBits<Real>;
  using Int = ExponentOf<Real>;
  const Int exponent = smaller<Int>(a.exponent, Bits::kBias - 4);
  const Real value = a.mantissa * power_of_two<Real>(larger<Int>(exponent, 1 - Bits::kBias));
  return exponent < 1 - Bits::kBias ? Real(0) : value;
}

}  // namespace crnn
