// Selection of the k best of many items by a thread block, in shared memory.
#pragma once

#include "common/gpu.h"

namespace crnn::beam_search {

// a < b means that item a is better than item b; no two items are equal. Items are pushed in rounds. When the
// buffer is full, only the best k are kept, and from then on only items better than the worst of them are
// accepted. The rank of an item is the number of better items. Counting them is faster than sorting for so
// few items, and the result does not depend on the order of arrival.
template <class Item>
class BlockTopK {
 public:
  // Room for k items and two per thread.
  static CRNN_HOST_DEVICE constexpr int64_t capacity(int64_t k, int64_t threads) { return k + 2 * threads; }
  // compact() ranks up to this many items per thread.
  static constexpr int kMaxPerThread = 7;

  // items: (capacity) in shared memory, the first `size` are already set; count: in shared memory. Called by
  // every thread of the block with the same arguments.
  __device__ BlockTopK(Item* items, int* count, int size, int k, const Item& threshold)
      : items_(items), count_(count), k_(k), threshold_(threshold) {
    if (threadIdx.x == 0) *count = size;
    __syncthreads();
  }

  // Accepts only items that are not worse than `threshold`.
  __device__ void set_threshold(const Item& threshold) { threshold_ = threshold; }

  // Called by every thread of the block, with or without an item.
  __device__ void push(bool has_item, const Item& item) {
    if (has_item && !(threshold_ < item)) items_[atomicAdd(count_, 1)] = item;
    __syncthreads();
    const int size = *count_;
    __syncthreads();  // before the next push changes the count
    if (size > k_ + int(blockDim.x)) compact();
  }

  // Sorts the best k to the front, drops the others, and returns the number of items left. Called by every
  // thread of the block; no thread may have written an item since the last barrier.
  __device__ int compact() {
    const int size = *count_;
    Item own[kMaxPerThread];
    int rank[kMaxPerThread];
#pragma unroll
    for (int j = 0; j < kMaxPerThread; ++j) {
      const int i = int(threadIdx.x + j * blockDim.x);
      rank[j] = k_;
      if (i >= size) continue;
      own[j] = items_[i];
      rank[j] = 0;
      for (int other = 0; other < size; ++other) rank[j] += items_[other] < own[j];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kMaxPerThread; ++j) {
      if (rank[j] < k_) items_[rank[j]] = own[j];
    }
    const int kept = minimum(size, k_);
    if (threadIdx.x == 0) *count_ = kept;
    __syncthreads();
    if (kept == k_) threshold_ = items_[k_ - 1];
    return kept;
  }

 private:
  Item* items_;
  int* count_;
  int k_;
  Item threshold_;
};

}  // namespace crnn::beam_search
