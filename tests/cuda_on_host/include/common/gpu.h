// The twin of csrc/common/gpu.h under which kernels run on the CPU: the same names, for a host compiler.
#pragma once

#include <cmath>
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

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Stream {
  cudaStream_t handle;
  const char* op;
};

[[noreturn]] inline void fail(const char* op, const std::string& what) {
  throw std::runtime_error("CUDA error in " + std::string(op) + ": " + what);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes, Stream stream,
            const Arguments&... arguments) {
  if (blocks == 0) return;
  if (blocks > INT32_MAX) fail(stream.op, std::to_string(blocks) + " blocks are more than a grid holds");
  try {
    cuda_on_host::run({blocks, threads, shared_bytes},
                      [&] { kernel(static_cast<Parameters>(arguments)...); });
  } catch (const cuda_on_host::Error& error) {
    fail(stream.op, error.what());
  }
}

inline float exp2(float x) {
  return ::exp2f(x);
}
inline double exp2(double x) {
  return ::exp2(x);
}
inline float log(float x) {
  return ::logf(x);
}
inline double log(double x) {
  return ::log(x);
}
inline float log2(float x) {
  return ::log2f(x);
}
inline double log2(double x) {
  return ::log2(x);
}

template <class Storage>
auto to_compute(Storage x) {
  return crnn::to_compute(x);
}

template <class Storage, class Real>
Storage from_compute(Real x) {
  return FromCompute<Storage>::convert(x);
}

}  // namespace crnn::gpu
