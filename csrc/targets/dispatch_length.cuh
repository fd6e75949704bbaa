// The classes of sizes of texts: where the states of a recursion lie, and how many threads share them.
//
// A recursion works on pairs of states, a label and the blank before it: S + 1 of them, the last without a
// label. Up to kMaxPairsOneWarp pairs one warp holds them in registers, with 1, 2 or 4 a lane; up to
// kMaxPairsFourWarps four warps do, with 2 or 4; those of a longer text lie in memory. A kernel is made for
// the longest target that the BatchShape allows, and each text takes the first class that holds it. There are
// fewer kernels than classes, for they are most of a build: a bound has one of its own where that needs fewer
// threads or registers.
#pragma once

#include <type_traits>

#include "common/gpu.h"

namespace crnn {

constexpr int kMaxPairsOneWarp = 4 * gpu::kWarpSize, kMaxPairsFourWarps = 16 * gpu::kWarpSize;

// Calls launch(kMaxPairs as an integral_constant): the smallest kernel for all targets that the
// BatchShape allows. kBounds: the most pairs of the kernels but the largest, which is for targets of any
// length; ascending.
template <int64_t... kBounds, class Launch>
void dispatch_max_pairs(int64_t max_pairs, const Launch& launch) {
  const bool launched =
      ((max_pairs <= kBounds && (launch(std::integral_constant<int64_t, kBounds>{}), true)) || ...);
  if (!launched) launch(std::integral_constant<int64_t, INT64_MAX>{});
}

// In a kernel for up to kMaxPairs: in_registers(pairs of a lane, warps), both as integral_constants, or
// in_memory(), by the pairs that a text has.
template <int64_t kMaxPairs, class InRegisters, class InMemory>
__device__ __forceinline__ auto dispatch_pairs(int64_t pairs, const InRegisters& in_registers,
                                               const InMemory& in_memory) {
  constexpr std::integral_constant<int, 1> k1;
  constexpr std::integral_constant<int, 2> k2;
  constexpr std::integral_constant<int, 4> k4;
  if (kMaxPairs <= gpu::kWarpSize || pairs <= gpu::kWarpSize) return in_registers(k1, k1);
  if constexpr (kMaxPairs > gpu::kWarpSize) {
    if (kMaxPairs <= 2 * gpu::kWarpSize || pairs <= 2 * gpu::kWarpSize) return in_registers(k2, k1);
  }
  if constexpr (kMaxPairs > 2 * gpu::kWarpSize) {
    if (kMaxPairs <= kMaxPairsOneWarp || pairs <= kMaxPairsOneWarp) return in_registers(k4, k1);
  }
  if constexpr (kMaxPairs > kMaxPairsOneWarp) {
    if (kMaxPairs <= kMaxPairsFourWarps / 2 || pairs <= kMaxPairsFourWarps / 2) return in_registers(k2, k4);
  }
  if constexpr (kMaxPairs > kMaxPairsFourWarps / 2) {
    if (kMaxPairs <= kMaxPairsFourWarps || pairs <= kMaxPairsFourWarps) return in_registers(k4, k4);
  }
  if constexpr (kMaxPairs > kMaxPairsFourWarps) return in_memory();
}

}  // namespace crnn
