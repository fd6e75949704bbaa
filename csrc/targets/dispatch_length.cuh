// Chooses, by the length of a text, where the states of a recursion are stored and how many threads share
// them.
//
// A recursion works on pairs of states: a label and the blank before it. A text has S + 1 pairs; the last one
// has no label. Up to kMaxPairsOneWarp pairs fit in the registers of one warp, with 1, 2 or 4 pairs per lane;
// up to kMaxPairsFourWarps pairs fit in four warps, with 2 or 4 per lane. Longer texts use memory. A kernel
// is compiled for a maximum number of pairs, which follows from the BatchShape; within it, each text takes
// the smallest layout that holds it. There are fewer kernels than layouts, because they dominate the build
// time: a bound has its own kernel only where that saves threads or registers.
#pragma once

#include <type_traits>

#include "common/gpu.h"

namespace crnn {

constexpr int kMaxPairsOneWarp = 4 * gpu::kWarpSize, kMaxPairsFourWarps = 16 * gpu::kWarpSize;

// Calls launch(kMaxPairs as an integral_constant) for the smallest kernel that handles every target of this
// BatchShape. kBounds: the pair limits of all kernels but the last, in ascending order. The last kernel has
// no limit.
template <int64_t... kBounds, class Launch>
void dispatch_max_pairs(int64_t max_pairs, const Launch& launch) {
  const bool launched =
      ((max_pairs <= kBounds && (launch(std::integral_constant<int64_t, kBounds>{}), true)) || ...);
  if (!launched) launch(std::integral_constant<int64_t, INT64_MAX>{});
}

// For kernels with up to kMaxPairs pairs. Calls in_registers(pairs per lane, warps), both integral_constants,
// or in_memory(), depending on the number of pairs of a text.
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
