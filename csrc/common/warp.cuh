// Values of any class exchanged and folded among the threads of a warp or a block.
#pragma once

#include <cstring>
#include <type_traits>

#include "common/gpu.h"

namespace crnn::gpu {

// exchange(word) for each 32-bit word of the value: shuffles take no classes.
template <class Value, class Shuffle>
__device__ inline Value shuffle_words(const Value& value, const Shuffle& shuffle) {
  static_assert(sizeof(Value) % sizeof(int) == 0 && std::is_trivially_copyable_v<Value>);
  constexpr int kWords = sizeof(Value) / sizeof(int);
  int words[kWords];
  memcpy(words, &value, sizeof(value));
  for (int i = 0; i < kWords; ++i) words[i] = shuffle(words[i]);
  Value result;
  memcpy(&result, words, sizeof(result));
  return result;
}

template <class Value>
__device__ inline Value shuffle(const Value& value, int lane) {
  return shuffle_words(value, [lane](int word) { return __shfl_sync(kFullMask, word, lane); });
}

// The lowest lane keeps its own.
template <class Value>
__device__ inline Value shuffle_up(const Value& value, int distance = 1) {
  return shuffle_words(value, [distance](int word) { return __shfl_up_sync(kFullMask, word, distance); });
}

// Each lane's value folded with those of all lanes below it, by an associative operation.
template <class Value, class Operation>
__device__ inline Value warp_inclusive_scan(Value value, const Operation& operation) {
  const int lane = threadIdx.x % kWarpSize;
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const Value below = shuffle_up(value, distance);
    if (lane >= distance) value = operation(below, value);
  }
  return value;
}

// The values of kLanes neighbouring lanes folded by an associative operation, in each of them; kLanes a power
// of two. The order depends on kLanes alone.
//
// Two lanes that exchange values compute operation(a, b) and operation(b, a). All lanes get the same bits if
// these are the same bits, which a sum and a choice between unequal values give, but no sum of products: one
// lane may fuse the one product with the addition, the other lane the other. Nor does a sum whose operands
// are products of this lane, unless they are mul_rn's.
template <int kLanes, class Value, class Operation>
__device__ inline Value warp_reduce(Value value, const Operation& operation) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    value = operation(value, shuffle_words(value, [distance](int word) {
                        return __shfl_xor_sync(kFullMask, word, distance);
                      }));
  return value;
}

// The same for a group of kThreads neighbouring threads: a part of a warp, a warp, or the whole block.
template <int kThreads, class Value, class Operation>
__device__ inline Value tile_reduce(Value value, const Operation& operation) {
  if constexpr (kThreads <= kWarpSize) {
    return warp_reduce<kThreads>(value, operation);
  } else {
    constexpr int kWarps = kThreads / kWarpSize;
    GPU_SHARED(warp_results, Value[kWarps]);
    value = warp_reduce<kWarpSize>(value, operation);
    if (threadIdx.x % kWarpSize == 0) warp_results[threadIdx.x / kWarpSize] = value;
    __syncthreads();
    value = warp_reduce<kWarps>(warp_results[threadIdx.x % kWarps], operation);
    __syncthreads();  // the next fold writes there again
    return value;
  }
}

// The same for all threads of a block, of any size, by an operation for which a value counts as much once as
// twice.
template <class Value, class Operation>
__device__ inline Value block_reduce(Value value, const Operation& operation) {
  GPU_SHARED(warp_results, Value[kWarpSize]);
  value = warp_reduce<kWarpSize>(value, operation);
  if (threadIdx.x % kWarpSize == 0) warp_results[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = warp_reduce<kWarpSize>(warp_results[threadIdx.x % kWarpSize % (blockDim.x / kWarpSize)], operation);
  __syncthreads();  // the next fold writes there again
  return value;
}

// What a group's threads have written is seen by all of them. Every thread of the block calls it.
template <int kThreads>
__device__ inline void sync_tile() {
  if constexpr (kThreads <= kWarpSize) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

}  // namespace crnn::gpu
