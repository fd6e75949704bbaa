// Rows of C classes read and written by groups of threads, in 16-byte pieces wherever their layout allows.
//
// kThreadsPerRow threads share a row: a part of a warp (several rows a warp) when C is small, a warp, or the
// whole block when C is large. Within a group neighbouring threads have neighbouring pieces.
#pragma once

#include "common/views.h"
#include "common/warp.cuh"

namespace crnn {

constexpr int kRowBlockSize = 256;

// 16 bytes of storage: one load or store.
template <class Storage>
struct alignas(16) AlignedVector {
  static constexpr int kCount = 16 / sizeof(Storage);
  Storage values[kCount];
};

// Which row of a (T, N, C) tensor this thread's group has, and which of the group's threads this is.
template <int kThreadsPerRow>
struct RowTile {
  static constexpr int kRowsPerBlock = kRowBlockSize / kThreadsPerRow;
  int thread;
  bool has_row;  // false behind the last row; t and n are then 0
  int64_t t, n;

  __device__ RowTile(int64_t frames, int64_t samples) : thread(threadIdx.x % kThreadsPerRow) {
    const int64_t rows = frames * samples;
    int64_t row = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kThreadsPerRow;
    has_row = row < rows;
    if (!has_row) row = 0;
    if (rows <= UINT32_MAX) {  // the division of wider integers is slow
      t = has_row ? uint32_t(row) / uint32_t(samples) : 0;
    } else {
      t = row / samples;
    }
    n = row - t * samples;
  }
};

// Calls launch_with(kThreadsPerRow as an integral_constant, blocks): as few threads a row as keep it at a few
// chunks each, because the shuffles that join them cost, too.
template <class LaunchWith>
void dispatch_row_tile(int64_t rows, int64_t classes, const LaunchWith& launch_with) {
  const auto call = [&](auto threads_per_row) {
    constexpr int64_t kRows = RowTile<threads_per_row()>::kRowsPerBlock;
    launch_with(threads_per_row, (rows + kRows - 1) / kRows);
  };
  if (classes <= 64) {
    call(std::integral_constant<int, 8>{});
  } else if (classes <= 1024) {
    call(std::integral_constant<int, 32>{});
  } else {
    call(std::integral_constant<int, kRowBlockSize>{});
  }
}

// Walks one row: whole(c) for 16 bytes of it, of the classes from c on, and single(c) for one class, where
// the row is strided, and before and behind its 16-byte boundaries. Each thread gets its pieces in ascending
// order.
template <int kThreadsPerRow, class Storage, class Whole, class Single>
__device__ inline void walk_row(const Storage* row, int64_t stride, int classes, int thread,
                                const Whole& whole, const Single& single) {
  constexpr int kCount = AlignedVector<Storage>::kCount;
  const auto one_by_one = [&](int begin, int end) {
    for (int c = begin + thread; c < end; c += kThreadsPerRow) single(c);
  };
  if (stride != 1) {
    one_by_one(0, classes);
    return;
  }
  const int misaligned =
      int(reinterpret_cast<uintptr_t>(row) % sizeof(AlignedVector<Storage>) / sizeof(Storage));
  const int head = minimum((kCount - misaligned) % kCount, classes);
  const int behind = head + (classes - head) / kCount * kCount;
  one_by_one(0, head);
#pragma unroll 2
  for (int c = head + thread * kCount; c < behind; c += kThreadsPerRow * kCount) whole(c);
  one_by_one(behind, classes);
}

template <class Storage>
__device__ inline const AlignedVector<Storage>& load_vector(const Storage* from) {
  return *reinterpret_cast<const AlignedVector<Storage>*>(from);
}

// Calls body(values, first_class) for the pieces of a row; `values` is an array of the computing type.
//
// row: (classes) with stride
template <int kThreadsPerRow, class Storage, class Body>
__device__ inline void read_row(const Storage* __restrict__ row, int64_t stride, int classes, int thread,
                                const Body& body) {
  using Real = typename ComputeType<Storage>::Real;
  constexpr int kCount = AlignedVector<Storage>::kCount;
  walk_row<kThreadsPerRow>(
      row, stride, classes, thread,
      [&](int c) {
        const AlignedVector<Storage> chunk = load_vector(row + c);
        Real values[kCount];
        for (int j = 0; j < kCount; ++j) values[j] = gpu::to_compute(chunk.values[j]);
        body(values, c);
      },
      [&](int c) {
        const Real value[1] = {gpu::to_compute(row[c * stride])};
        body(value, c);
      });
}

// to[c] = change(from[c]) for the classes of a row.
//
// from, to: (classes) with a stride each
template <int kThreadsPerRow, class Storage, class Change>
__device__ inline void transform_row(const Storage* __restrict__ from, int64_t from_stride,
                                     Storage* __restrict__ to, int64_t to_stride, int classes, int thread,
                                     const Change& change) {
  constexpr int kCount = AlignedVector<Storage>::kCount;
  const auto changed = [&](Storage x) { return gpu::from_compute<Storage>(change(gpu::to_compute(x))); };
  const bool alike = from_stride == to_stride &&
                     (reinterpret_cast<uintptr_t>(from) - reinterpret_cast<uintptr_t>(to)) % 16 == 0;
  walk_row<kThreadsPerRow>(
      to, alike ? to_stride : 0, classes, thread,
      [&](int c) {
        AlignedVector<Storage> chunk = load_vector(from + c);
        for (int j = 0; j < kCount; ++j) chunk.values[j] = changed(chunk.values[j]);
        *reinterpret_cast<AlignedVector<Storage>*>(to + c) = chunk;
      },
      [&](int c) { to[c * to_stride] = changed(from[c * from_stride]); });
}

// to[c] = value for the classes of a row.
//
// to: (classes) with stride
template <int kThreadsPerRow, class Storage, class Real>
__device__ inline void fill_row(Storage* to, int64_t stride, int classes, int thread, Real value) {
  const Storage stored = gpu::from_compute<Storage>(value);
  walk_row<kThreadsPerRow>(
      to, stride, classes, thread,
      [&](int c) {
        AlignedVector<Storage> chunk;
        for (Storage& x : chunk.values) x = stored;
        *reinterpret_cast<AlignedVector<Storage>*>(to + c) = chunk;
      },
      [&](int c) { to[c * stride] = stored; });
}

}  // namespace crnn
