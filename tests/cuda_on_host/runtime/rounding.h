// Rounding errors of GPU math functions, which differ from the host's. With CUDA_ON_HOST_ROUNDING, each
// result is off by a few ulps, chosen by a hash of the argument. The environment variable CUDA_ON_HOST_SEED
// seeds the hash.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

namespace cuda_on_host {

#ifdef CUDA_ON_HOST_ROUNDING
constexpr bool kAddsUlpErrors = true;
#else
constexpr bool kAddsUlpErrors = false;
#endif

inline uint64_t ulp_error_seed() {
  static const char* const seed = std::getenv("CUDA_ON_HOST_SEED");
  static const uint64_t number = seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
  return number;
}

// The finalizer of splitmix64: every bit of the result depends on every bit of x.
inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// `result`, the value of a function of `argument`, moved by at most max_ulps. Only normal numbers move.
template <class Real>
Real with_ulp_error(Real result, Real argument, int max_ulps) {
  if (!kAddsUlpErrors || !std::isnormal(result)) return result;
  using Bits = std::conditional_t<sizeof(Real) == 4, uint32_t, uint64_t>;
  const uint64_t choice = mix_bits(std::bit_cast<Bits>(argument) + mix_bits(ulp_error_seed()));
  const int ulps = int(choice % unsigned(2 * max_ulps + 1)) - max_ulps;
  return std::bit_cast<Real>(Bits(std::bit_cast<Bits>(result) + ulps));
}

}  // namespace cuda_on_host
