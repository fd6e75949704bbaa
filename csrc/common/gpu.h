// What kernels may use of CUDA: its keywords and built-in variables, __syncthreads, shuffles and votes with
// an explicit mask, and what is declared here. No other file of the kernels includes a CUDA header.
//
// A twin of this file, found first on the include path, is all it takes to run the kernels elsewhere.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "common/half.h"

// A variable or array in the block's shared memory: GPU_SHARED(name, float[32]).
#define GPU_SHARED(name, ...) __shared__ crnn::gpu::Type<__VA_ARGS__> name

namespace crnn::gpu {

template <class T>
using Type = T;

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Where the kernels of an operator run, and the name their errors give.
struct Stream {
  cudaStream_t handle;
  const char* op;
};

// Not the form of an argument error, "<op>: <rule>": this one is no ValueError in Python.
[[noreturn]] inline void fail(const char* op, const std::string& what) {
  throw std::runtime_error("CUDA error in " + std::string(op) + ": " + what);
}

// Starts kernel(arguments...) on `blocks` blocks of `threads` threads, a multiple of the warp's; none for no
// blocks.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes, Stream stream,
            const Arguments&... arguments) {
  if (blocks == 0) return;
  if (blocks > INT32_MAX) fail(stream.op, std::to_string(blocks) + " blocks are more than a grid holds");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.handle;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  if (error == cudaSuccess) return;
  cudaGetLastError();  // forgotten, or the next launch would be blamed for it
  fail(stream.op, cudaGetErrorString(error));
}

__device__ inline float exp2(float x) {
  return ::exp2f(x);
}
__device__ inline double exp2(double x) {
  return ::exp2(x);
}
__device__ inline float log(float x) {
  return ::logf(x);
}
__device__ inline double log(double x) {
  return ::log(x);
}
__device__ inline double log2(double x) {
  return ::log2(x);
}

// As crnn::to_compute, by the hardware's own conversion.
template <class Storage>
__device__ inline auto to_compute(Storage x) {
  if constexpr (std::is_same_v<Storage, Half>) {
    return __half2float(__ushort_as_half(x.bits));
  } else {
    return crnn::to_compute(x);
  }
}

// As crnn::FromCompute, likewise.
template <class Storage, class Real>
__device__ inline Storage from_compute(Real x) {
  if constexpr (std::is_same_v<Storage, Half>) {
    return {__half_as_ushort(__float2half_rn(x))};
  } else {
    return FromCompute<Storage>::convert(x);
  }
}

}  // namespace crnn::gpu
