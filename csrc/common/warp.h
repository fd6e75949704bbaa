// Values of any class exchanged and folded among the threads of a warp or a block.
#pragma once

#include <cstring>
#include <type_traits>

#include "common/gpu.h"

namespace crnn::gpu {

// exchange(word) for each 32-bit word of the value: shuffles take no classes.
template <class Value, class Exchange>
__device__ inline Value exchanged(const Value& value, const Exchange& exchange) {
  static_assert(sizeof(Value) % sizeof(int) == 0 && std::is_trivially_copyable_v<Value>);
  constexpr int kWords = sizeof(Value) / sizeof(int);
  int words[kWords];
  memcpy(words, &value, sizeof(value));
  for (int i = 0; i < kWords; ++i) words[i] = exchange(words[i]);
  Value result;
  memcpy(&result, words, sizeof(result));
  return result;
}

template <class Value>
__device__ inline Value from_lane(const Value& value, int lane) {
  return exchanged(value, [lane](int word) { return __shfl_sync(kAllLanes, word, lane); });
}

// The lowest lane keeps its own.
template <class Value>
__device__ inline Value from_lane_below(const Value& value, int distance = 1) {
  return exchanged(value, [distance](int word) { return __shfl_up_sync(kAllLanes, word, distance); });
}

// Each lane's value folded with those of all lanes below it, by an associative operation.
template <class Value, class Operation>
__device__ inline Value scanned_over_lanes(Value value, const Operation& operation) {
  const int lane = threadIdx.x % kWarp;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Value below = from_lane_below(value, distance);
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
// are products of this lane, unless they are rounded_product's.
template <int kLanes, class Value, class Operation>
__device__ inline Value folded_over_lanes(Value value, const Operation& operation) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    value = operation(
        value, exchanged(value, [distance](int word) { return __shfl_xor_sync(kAllLanes, word, distance); }));
  return value;
}

// The same for a group of kThreads neighbouring threads: a part of a warp, a warp, or the whole block.
template <int kThreads, class Value, class Operation>
__device__ inline Value folded_over_group(Value value, const Operation& operation) {
  if constexpr (kThreads <= kWarp) {
    return folded_over_lanes<kThreads>(value, operation);
  } else {
    constexpr int kWarps = kThreads / kWarp;
    GPU_SHARED(of_warp, Value[kWarps]);
    value = folded_over_lanes<kWarp>(value, operation);
    if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = folded_over_lanes<kWarps>(of_warp[threadIdx.x % kWarps], operation);
    __syncthreads();  // the next fold writes there again
    return value;
  }
}

// The same for all threads of a block, of any size, by an operation for which a value counts as much once as
// twice.
template <class Value, class Operation>
__device__ inline Value folded_over_block(Value value, const Operation& operation) {
  GPU_SHARED(of_warp, Value[kWarp]);
  value = folded_over_lanes<kWarp>(value, operation);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = folded_over_lanes<kWarp>(of_warp[threadIdx.x % kWarp % (blockDim.x / kWarp)], operation);
  __syncthreads();  // the next fold writes there again
  return value;
}

// What a group's threads have written is seen by all of them. Every thread of the block calls it.
template <int kThreads>
__device__ inline void synchronise_group() {
  if constexpr (kThreads <= kWarp) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

}  // namespace crnn::gpu
