// Reads one row of C classes with a group of threads, in 16-byte loads wherever its layout allows.
#pragma once

#include "common/gpu.h"

namespace crnn {

// 16 bytes of storage: one load.
template <class Storage>
struct alignas(16) Chunk {
  static constexpr int kCount = 16 / sizeof(Storage);
  Storage values[kCount];
};

// Calls body(values, first_class) for pieces that make up the row; `values` is an array of the computing
// type: a chunk, or one number where the row is strided, and before and behind its 16-byte boundaries. This
// thread, number `thread` of the `threads` in the group, gets its pieces in ascending order; the group's
// threads read neighbouring pieces.
//
// row: (classes) with stride
template <class Storage, class Body>
__device__ inline void read_row_as_group(const Storage* __restrict__ row, int64_t stride, int classes,
                                         int thread, int threads, const Body& body) {
  using Real = typename ComputeType<Storage>::Real;
  constexpr int kCount = Chunk<Storage>::kCount;
  const auto one_by_one = [&](int begin, int end) {
    for (int c = begin + thread; c < end; c += threads) {
      const Real value[1] = {gpu::to_compute(row[c * stride])};
      body(value, c);
    }
  };
  if (stride != 1) {
    one_by_one(0, classes);
    return;
  }
  const int misaligned = int(reinterpret_cast<uintptr_t>(row) % sizeof(Chunk<Storage>) / sizeof(Storage));
  const int head = smaller((kCount - misaligned) % kCount, classes);
  const int chunks = (classes - head) / kCount;
  one_by_one(0, head);
  const auto* aligned = reinterpret_cast<const Chunk<Storage>*>(row + head);
#pragma unroll 2
  for (int i = thread; i < chunks; i += threads) {
    const Chunk<Storage> chunk = aligned[i];
    Real values[kCount];
    for (int j = 0; j < kCount; ++j) values[j] = gpu::to_compute(chunk.values[j]);
    body(values, head + i * kCount);
  }
  one_by_one(head + chunks * kCount, classes);
}

}  // namespace crnn
