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
constexpr bool kMovesResults = true;
#else
constexpr bool kMovesResults = false;
#endif

inline uint64_t rounding_seed() {
  static const char* const seed = std::getenv("CUDA_ON_HOST_SEED");
  static const uint64_t number = seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
  return number;
}

// Every bit of the result depends on every bit of x (the finalizer of splitmix64).
inline uint64_t hashed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// The result of a function of `argument`, off by at most so many ulps; only a normal number can be.
template <class Real>
Real rounded(Real result, Real argument, int most_ulps) {
  if (!kMovesResults || !std::isnormal(result)) return result;
  using Bits = std::conditional_t<sizeof(Real) == 4, uint32_t, uint64_t>;
  const uint64_t choice = hashed(std::bit_cast<Bits>(argument) + hashed(rounding_seed()));
  const int ulps = int(choice % unsigned(2 * most_ulps + 1)) - most_ulps;
  return std::bit_cast<Real>(Bits(std::bit_cast<Bits>(result) + ulps));
}

}  // namespace cuda_on_host
