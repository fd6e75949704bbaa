// Replaces csrc/common/gpu_platform.h when kernels run on the CPU: the same names for a host compiler.
#pragma once

#include <cmath>
#include <string>

#include "common/half.h"
#include "runtime/cuda.h"
#include "runtime/rounding.h"

#define GPU_SHARED(name, ...)                                                             \
  static char name##_owner;                                                               \
  auto& name = *static_cast<crnn::gpu::Type<__VA_ARGS__>*>(cuda_on_host::shared_variable( \
      &name##_owner, sizeof(crnn::gpu::Type<__VA_ARGS__>), cuda_on_host::SourceLocation::current()))

#define GPU_DYNAMIC_SHARED(Type, name) Type* name = static_cast<Type*>(cuda_on_host::dynamic_shared())

namespace crnn::gpu {

template <class T>
using Type = T;

template <class... Parameters, class... Arguments>
std::string launch_error(void (*kernel)(Parameters...), unsigned blocks, unsigned threads,
                         size_t shared_bytes, cudaStream_t, const Arguments&... arguments) {
  try {
    cuda_on_host::launch({blocks, int(threads), shared_bytes},
                         [&] { kernel(static_cast<Parameters>(arguments)...); });
  } catch (const cuda_on_host::Error& error) {
    return error.what();
  }
  return "";
}

inline float half_to_float(Half x) {
  return crnn::to_compute(x);
}
inline Half float_to_half(float x) {
  return FromCompute<Half>::convert(x);
}

// Maximum errors as CUDA documents them, relative to the correctly rounded result: 2 ulps for exp2f, 1 ulp
// for the others. The correctly rounded result comes from the next wider type.
inline float exp2(float x) {
  return x == 0 ? 1 : cuda_on_host::with_ulp_error(float(std::exp2(double(x))), x, 2);
}
inline double exp2(double x) {
  return x == 0 ? 1 : cuda_on_host::with_ulp_error(double(std::exp2(static_cast<long double>(x))), x, 1);
}
inline float log(float x) {
  return x == 1 ? 0 : cuda_on_host::with_ulp_error(float(std::log(double(x))), x, 1);
}
inline double log(double x) {
  return x == 1 ? 0 : cuda_on_host::with_ulp_error(double(std::log(static_cast<long double>(x))), x, 1);
}
inline float log2(float x) {
  return x == 1 ? 0 : cuda_on_host::with_ulp_error(float(std::log2(double(x))), x, 1);
}
inline double log2(double x) {
  return x == 1 ? 0 : cuda_on_host::with_ulp_error(double(std::log2(static_cast<long double>(x))), x, 1);
}

}  // namespace crnn::gpu
