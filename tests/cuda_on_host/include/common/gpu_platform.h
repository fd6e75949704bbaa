// The twin of csrc/common/gpu_platform.h under which kernels run on the CPU: the same names, for a host
// compiler.
#pragma once

#include <string>

#include "common/half.h"
#include "runtime/cuda.h"

#define GPU_SHARED(name, ...)                                                             \
  static char name##_owner;                                                               \
  auto& name = *static_cast<crnn::gpu::Type<__VA_ARGS__>*>(cuda_on_host::shared_variable( \
      &name##_owner, sizeof(crnn::gpu::Type<__VA_ARGS__>), cuda_on_host::Place::current()))

#define GPU_DYNAMIC_SHARED(Type, name) Type* name = static_cast<Type*>(cuda_on_host::dynamic_shared())

namespace crnn::gpu {

template <class T>
using Type = T;

template <class... Parameters, class... Arguments>
std::string launch_error(void (*kernel)(Parameters...), unsigned blocks, unsigned threads,
                         size_t shared_bytes, cudaStream_t, const Arguments&... arguments) {
  try {
    cuda_on_host::run({blocks, int(threads), shared_bytes},
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

}  // namespace crnn::gpu
