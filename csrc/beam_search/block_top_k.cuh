// The best of many items, found by a whole block in its shared memory.
#pragma once

#include "common/gpu.h"

namespace crnn::beam_search {

// Items have an order, a < b where a is the better one, and no two are equal in it. They are offered a few at
// a time; when the memory is full, all but the best `wanted` are dropped, and from then on only those get in
// that are better than the last of them. An item's place in the order is the number of items before it: with
// so few of them, counting is quicker than any sort, and gives the same result in every run, in whatever
// order they came.
template <class Item>
class BlockTopK {
 public:
  // Room for what is wanted and two items of each thread.
  static CRNN_HOST_DEVICE constexpr int64_t capacity(int64_t wanted, int64_t threads) {
    return wanted + 2 * threads;
  }
  // Of so many items each thread finds the places.
  static constexpr int kMaxPerThread = 7;

  // items: (capacity) in shared memory, of which the first `held` are there already; count: in shared memory.
  // Every thread of the block makes its own, with the same arguments.
  __device__ BlockTopK(Item* items, int* count, int held, int wanted, const Item& threshold)
      : items_(items), count_(count), wanted_(wanted), threshold_(threshold) {
    if (threadIdx.x == 0) *count = held;
    __syncthreads();
  }

  // Only what is better than `threshold`, or is it, gets in.
  __device__ void set_threshold(const Item& threshold) { threshold_ = threshold; }

  // From every thread of the block, with an item or without.
  __device__ void push(bool has_item, const Item& item) {
    if (has_item && !(threshold_ < item)) items_[atomicAdd(count_, 1)] = item;
    __syncthreads();
    const int held = *count_;
    __syncthreads();  // before anybody adds to it again
    if (held > wanted_ + int(blockDim.x)) compact();
  }

  // Sorts the best `wanted` to the front, drops the others, and returns how many there are. From every thread
  // of the block, and none has written an item since the last barrier.
  __device__ int compact() {
    const int held = *count_;
    Item mine[kMaxPerThread];
    int place[kMaxPerThread];
#pragma unroll
    for (int k = 0; k < kMaxPerThread; ++k) {
      const int i = int(threadIdx.x + k * blockDim.x);
      place[k] = wanted_;
      if (i >= held) continue;
      mine[k] = items_[i];
      place[k] = 0;
      for (int other = 0; other < held; ++other) place[k] += items_[other] < mine[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kMaxPerThread; ++k) {
      if (place[k] < wanted_) items_[place[k]] = mine[k];
    }
    const int kept = minimum(held, wanted_);
    if (threadIdx.x == 0) *count_ = kept;
    __syncthreads();
    if (kept == wanted_) threshold_ = items_[wanted_ - 1];
    return kept;
  }

 private:
  Item* items_;
  int* count_;
  int wanted_;
  Item threshold_;
};

}  // namespace crnn::beam_search
