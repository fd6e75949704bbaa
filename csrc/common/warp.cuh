// Shuffles, scans and reductions of values of any trivially copyable class over a warp, a tile or a block.
#pragma once

#include <cstring>
#include <type_traits>

#include "common/gpu.h"

namespace crnn::gpu {

// Applies shuffle(word) to each 32-bit word of the value, because shuffles take no classes.
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

// The value `distance` lanes below. The lowest lanes keep their own.
template <class Value>
__device__ inline Value shuffle_up(const Value& value, int distance = 1) {
  return shuffle_words(value, [distance](int word) { return __shfl_up_sync(kFullMask, word, distance); });
}

// The reduction of each lane's value with those of all lanes below it. The operation must be associative.
template <class Value, class Operation>
__device__ inline Value warp_inclusive_scan(Value value, const Operation& operation) {
  const int lane = threadIdx.x % kWarpSize;
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const Value below = shuffle_up(value, distance);
    if (lane >= distance) value = operation(below, value);
  }
  return value;
}

// Reduces the values of kLanes neighboring lanes with an associative operation; each lane gets the result.
// kLanes is a power of two. The order depends on kLanes alone.
//
// The two lanes of an exchange compute operation(a, b) and operation(b, a). All lanes get the same bits only
// if both calls do. That holds for sums and for a choice between unequal values. It does not hold for a sum
// of products: each lane may fuse a different product with the addition. It does not hold either for a sum
// whose operands are products computed in this lane, unless they come from mul_rn.
template <int kLanes, class Value, class Operation>
__device__ inline Value warp_reduce(Value value, const Operation& operation) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    value = operation(value, shuffle_words(value, [distance](int word) {
                        return __shfl_xor_sync(kFullMask, word, distance);
                      }));
  return value;
}

// warp_reduce for a tile of kThreads neighboring threads: part of a warp, a warp, or the whole block.
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
    __syncthreads();  // the next reduction reuses warp_results
    return value;
  }
}

// Reduces over a block of any size. The operation must be idempotent: some values enter twice.
template <class Value, class Operation>
__device__ inline Value block_reduce(Value value, const Operation& operation) {
  GPU_SHARED(warp_results, Value[kWarpSize]);
  value = warp_reduce<kWarpSize>(value, operation);
  if (threadIdx.x % kWarpSize == 0) warp_results[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = warp_reduce<kWarpSize>(warp_results[threadIdx.x % kWarpSize % (blockDim.x / kWarpSize)], operation);
  __syncthreads();  // the next reduction reuses warp_results
  return value;
}

// Makes the tile's writes visible to all its threads. Every thread of the block must call this.
template <int kThreads>
__device__ inline void sync_tile() {
  if constexpr (kThreads <= kWarpSize) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

}  // namespace crnn::gpu
