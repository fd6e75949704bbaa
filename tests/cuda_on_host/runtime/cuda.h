// The subset of CUDA that the kernels and their tests use, for a host compiler: keywords, built-in variables,
// barriers, shuffles, votes, atomicAdd, and the memory functions of the runtime API.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "runtime/scheduler.h"

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// Set by the scheduler for the running thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// ---- Barriers ----

inline void __syncthreads(cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  cuda_on_host::block_barrier(false, location);
}

inline int __syncthreads_or(int predicate,
                            cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  return cuda_on_host::block_barrier(predicate != 0, location);
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  cuda_on_host::warp_collective(cuda_on_host::WarpOp::kSync, mask, 0, 0, 32, location);
}

// ---- Shuffles and votes ----

namespace cuda_on_host {

template <class T, class... Others>
constexpr bool is_one_of = (std::is_same_v<T, Others> || ...);

template <class T>
T shuffle(WarpOp op, unsigned mask, T value, int argument, int width, SourceLocation location) {
  static_assert(
      is_one_of<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double>,
      "CUDA does not shuffle this type");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(value));
  bits = warp_collective(op, mask, bits, argument, width, location);
  memcpy(&value, &bits, sizeof(value));
  return value;
}

inline unsigned vote(WarpOp op, unsigned mask, int predicate, SourceLocation location) {
  return unsigned(warp_collective(op, mask, predicate != 0, 0, 32, location));
}

}  // namespace cuda_on_host

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  return cuda_on_host::shuffle(cuda_on_host::WarpOp::kShuffle, mask, value, lane, width, location);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  return cuda_on_host::shuffle(cuda_on_host::WarpOp::kShuffleUp, mask, value, int(distance), width, location);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  return cuda_on_host::shuffle(cuda_on_host::WarpOp::kShuffleDown, mask, value, int(distance), width,
                               location);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  return cuda_on_host::shuffle(cuda_on_host::WarpOp::kShuffleXor, mask, value, lanes, width, location);
}

inline unsigned __ballot_sync(
    unsigned mask, int predicate,
    cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  return cuda_on_host::vote(cuda_on_host::WarpOp::kBallot, mask, predicate, location);
}

inline int __any_sync(unsigned mask, int predicate,
                      cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  return int(cuda_on_host::vote(cuda_on_host::WarpOp::kAny, mask, predicate, location));
}

inline int __all_sync(unsigned mask, int predicate,
                      cuda_on_host::SourceLocation location = cuda_on_host::SourceLocation::current()) {
  return int(cuda_on_host::vote(cuda_on_host::WarpOp::kAll, mask, predicate, location));
}

// The one-based position of the lowest set bit; 0 if there is none.
inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}

// ---- Atomics ----

int atomicAdd(int* address, int value);
unsigned atomicAdd(unsigned* address, unsigned value);
unsigned long long atomicAdd(unsigned long long* address, unsigned long long value);
float atomicAdd(float* address, float value);
double atomicAdd(double* address, double value);

// ---- Memory ----

using cudaStream_t = struct CudaStream*;

enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation };

enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice
};

// New memory is filled with NaN and counts as uninitialized.
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemset(void* memory, int byte, size_t bytes);
cudaError_t cudaDeviceSynchronize();
const char* cudaGetErrorString(cudaError_t error);

template <class T>
cudaError_t cudaMalloc(T** memory, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}
