// Reads and writes rows of C classes with tiles of threads, as 16-byte vectors where the layout allows it.
//
// kThreadsPerRow threads share a row: part of a warp (several rows per warp) for small C, a warp, or the
// whole block for large C. Neighboring threads of a tile access neighboring vectors.
#pragma once

#include "common/views.h"
#include "common/warp.cuh"

namespace crnn {

constexpr int kRowBlockSize = 256;

// 16 bytes of storage: one load or store.
template <class Storage>
struct alignas(16) AlignedVector {
  static constexpr int kSize = 16 / sizeof(Storage);
  Storage values[kSize];
};

// The row of a (T, N, C) tensor assigned to this thread's tile, and the thread's index in the tile.
template <int kThreadsPerRow>
struct RowTile {
  static constexpr int kRowsPerBlock = kRowBlockSize / kThreadsPerRow;
  int thread;
  bool has_row;  // false after the last row; t and n are then 0
  int64_t t, n;

  __device__ RowTile(int64_t frames, int64_t samples) : thread(threadIdx.x % kThreadsPerRow) {
    const int64_t rows = frames * samples;
    int64_t row = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kThreadsPerRow;
    has_row = row < rows;
    if (!has_row) row = 0;
    if (rows <= UINT32_MAX) {  // 64-bit division is slow
      t = has_row ? uint32_t(row) / uint32_t(samples) : 0;
    } else {
      t = row / samples;
    }
    n = row - t * samples;
  }
};

// Calls launch(kThreadsPerRow as an integral_constant, blocks). Uses as few threads per row as keep it at a
// few vectors per thread, because reductions across threads cost shuffles.
template <class Launch>
void dispatch_row_tile(int64_t rows, int64_t classes, const Launch& launch) {
  const auto call = [&](auto threads_per_row) {
    constexpr int64_t kRows = RowTile<threads_per_row()>::kRowsPerBlock;
    launch(threads_per_row, (rows + kRows - 1) / kRows);
  };
  if (classes <= 64) {
    call(std::integral_constant<int, 8>{});
  } else if (classes <= 1024) {
    call(std::integral_constant<int, 32>{});
  } else {
    call(std::integral_constant<int, kRowBlockSize>{});
  }
}

// Calls vector_body(c) for each 16 bytes of a row, starting at class c. Calls scalar_body(c) for single
// classes: in strided rows, and before and after the 16-byte boundaries. Each thread visits its classes in
// ascending order.
template <int kThreadsPerRow, class Storage, class VectorBody, class ScalarBody>
__device__ inline void for_each_in_row(const Storage* row, int64_t stride, int classes, int thread,
                                       const VectorBody& vector_body, const ScalarBody& scalar_body) {
  constexpr int kSize = AlignedVector<Storage>::kSize;
  const auto one_by_one = [&](int begin, int end) {
    for (int c = begin + thread; c < end; c += kThreadsPerRow) scalar_body(c);
  };
  if (stride != 1) {
    one_by_one(0, classes);
    return;
  }
  const int misaligned =
      int(reinterpret_cast<uintptr_t>(row) % sizeof(AlignedVector<Storage>) / sizeof(Storage));
  const int head = minimum((kSize - misaligned) % kSize, classes);
  const int tail = head + (classes - head) / kSize * kSize;
  one_by_one(0, head);
#pragma unroll 2
  for (int c = head + thread * kSize; c < tail; c += kThreadsPerRow * kSize) vector_body(c);
  one_by_one(tail, classes);
}

template <class Storage>
__device__ inline const AlignedVector<Storage>& load_vector(const Storage* from) {
  return *reinterpret_cast<const AlignedVector<Storage>*>(from);
}

// Calls body(values, first_class) for each part of a row; `values` is an array of the compute type.
//
// row: (classes) with stride
template <int kThreadsPerRow, class Storage, class Body>
__device__ inline void read_row(const Storage* __restrict__ row, int64_t stride, int classes, int thread,
                                const Body& body) {
  using Real = typename ComputeType<Storage>::Real;
  constexpr int kSize = AlignedVector<Storage>::kSize;
  for_each_in_row<kThreadsPerRow>(
      row, stride, classes, thread,
      [&](int c) {
        const AlignedVector<Storage> vector = load_vector(row + c);
        Real values[kSize];
        for (int j = 0; j < kSize; ++j) values[j] = gpu::to_compute(vector.values[j]);
        body(values, c);
      },
      [&](int c) {
        const Real value[1] = {gpu::to_compute(row[c * stride])};
        body(value, c);
      });
}

// to[c] = operation(from[c]) for all classes of a row.
//
// from, to: (classes), each with its own stride
template <int kThreadsPerRow, class Storage, class Operation>
__device__ inline void transform_row(const Storage* __restrict__ from, int64_t from_stride,
                                     Storage* __restrict__ to, int64_t to_stride, int classes, int thread,
                                     const Operation& operation) {
  constexpr int kSize = AlignedVector<Storage>::kSize;
  const auto transform = [&](Storage x) { return gpu::from_compute<Storage>(operation(gpu::to_compute(x))); };
  const bool same_alignment = from_stride == to_stride &&
                              (reinterpret_cast<uintptr_t>(from) - reinterpret_cast<uintptr_t>(to)) % 16 == 0;
  for_each_in_row<kThreadsPerRow>(
      to, same_alignment ? to_stride : 0, classes, thread,
      [&](int c) {
        AlignedVector<Storage> vector = load_vector(from + c);
        for (int j = 0; j < kSize; ++j) vector.values[j] = transform(vector.values[j]);
        *reinterpret_cast<AlignedVector<Storage>*>(to + c) = vector;
      },
      [&](int c) { to[c * to_stride] = transform(from[c * from_stride]); });
}

// to[c] = value for all classes of a row.
//
// to: (classes) with stride
template <int kThreadsPerRow, class Storage, class Real>
__device__ inline void fill_row(Storage* to, int64_t stride, int classes, int thread, Real value) {
  const Storage stored = gpu::from_compute<Storage>(value);
  for_each_in_row<kThreadsPerRow>(
      to, stride, classes, thread,
      [&](int c) {
        AlignedVector<Storage> vector;
        for (Storage& x : vector.values) x = stored;
        *reinterpret_cast<AlignedVector<Storage>*>(to + c) = vector;
      },
      [&](int c) { to[c * stride] = stored; });
}

}  // namespace crnn
