// The last digits of a GPU's functions, which are not those of the host's: with CUDA_ON_HOST_ROUNDING a
// result is moved by some ulps, chosen by a hash of the argument. CUDA_ON_HOST_SEED, in the environment,
// chooses among hashes.
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

// Every bit of the result depends on every bit of x (the finalizer of splitmix64).
inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// The result of a function of `argument`, off by at most so many ulps; only a normal number can be.
template <class Real>
Real with_ulp_error(Real result, Real argument, int max_ulps) {
  if (!kAddsUlpErrors || !std::isnormal(result)) return result;
  using Bits = std::conditional_t<sizeof(Real) == 4, uint32_t, uint64_t>;
  const uint64_t choice = mix_bits(std::bit_cast<Bits>(argument) + mix_bits(ulp_error_seed()));
  const int ulps = int(choice % unsigned(2 * max_ulps + 1)) - max_ulps;
  return std::bit_cast<Real>(Bits(std::bit_cast<Bits>(result) + ulps));
}

}  // namespace cuda_on_host
