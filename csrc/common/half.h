// float16 and bfloat16: storage types, computed in float.
//
// The conversions use branch-free integer arithmetic: below AVX-512 FP16, gcc does not vectorize its own
// conversions, and the row loops must vectorize.
#pragma once

#include "common/extended_range.h"

namespace crnn {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

// The type in which values of a storage type are computed.
template <class Storage>
struct ComputeType {
  using Real = float;
};

template <>
struct ComputeType<double> {
  using Real = double;
};

CRNN_INLINE float to_compute(float x) {
  return x;
}
CRNN_INLINE double to_compute(double x) {
  return x;
}
CRNN_INLINE float to_compute(BFloat16 x) {
  return bit_cast<float>(uint32_t(x.bits) << 16);
}

CRNN_INLINE float to_compute(Half x) {
  const uint32_t magnitude = x.bits & 0x7fffu;
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  // Read as the bits of a float, the exponent is 112 too small. The product corrects it, for subnormal
  // numbers too.
  const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude << 13) * 0x1p112f);
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  return bit_cast<float>((magnitude >= 0x7c00u ? special : finite) | sign);
}

template <class Storage>
struct FromCompute;

template <>
struct FromCompute<float> {
  static CRNN_INLINE float convert(float x) { return x; }
};

template <>
struct FromCompute<double> {
  static CRNN_INLINE double convert(double x) { return x; }
};

template <>
struct FromCompute<BFloat16> {
  // Rounds to nearest, ties to even.
  static CRNN_INLINE BFloat16 convert(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return {uint16_t(x == x ? rounded : 0x7fc0u)};
  }
};

template <>
struct FromCompute<Half> {
  // Rounds to nearest, ties to even. Overflow gives infinity.
  static CRNN_INLINE Half convert(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Below 2^-14, adding 1/2 leaves exactly the bits that a subnormal number keeps, already rounded.
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return {uint16_t((magnitude >= 0x477ff000u ? large : finite) | sign)};
  }
};

}  // namespace crnn
