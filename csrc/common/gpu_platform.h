// The parts of common/gpu.h that depend on CUDA itself: shared memory, the launch, float16 conversions, and
// functions whose last digits depend on the device.
//
// To run the kernels elsewhere, put another version of this file first on the include path.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <string>

#include "common/half.h"

// A variable or array in shared memory: GPU_SHARED(name, float[32]).
#define GPU_SHARED(name, ...) __shared__ crnn::gpu::Type<__VA_ARGS__> name

// The block's dynamic shared memory as `Type* name`; its size is set at launch.
#define GPU_DYNAMIC_SHARED(Type, name)                          \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  Type* name = reinterpret_cast<Type*>(name##_bytes)

namespace crnn::gpu {

template <class T>
using Type = T;

// Launches the kernel. Returns the error message, or an empty string on success.
template <class... Parameters, class... Arguments>
std::string launch_error(void (*kernel)(Parameters...), unsigned blocks, unsigned threads,
                         size_t shared_bytes, cudaStream_t stream, const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // clears the error, otherwise the next launch would report it
  return cudaGetErrorString(error);
}

// The hardware's own conversion.
__device__ inline float half_to_float(Half x) {
  return __half2float(__ushort_as_half(x.bits));
}
__device__ inline Half float_to_half(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
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
__device__ inline float log2(float x) {
  return ::log2f(x);
}
__device__ inline double log2(double x) {
  return ::log2(x);
}

}  // namespace crnn::gpu
