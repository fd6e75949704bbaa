// The CUDA subset that kernels may use: keywords, built-in variables, __syncthreads, shuffles and votes with
// an explicit mask, and the declarations below. No other file of the kernels includes a CUDA header.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>

#include "common/gpu_platform.h"
#include "common/half.h"

namespace crnn::gpu {

constexpr int kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffffu;

// The stream that an operator's kernels run on, and the operator's name for error messages.
struct Stream {
  cudaStream_t handle;
  const char* op;
};

// Not in the form of an argument error, "<op>: <what is wrong>": Python must not turn this into a ValueError.
[[noreturn]] inline void fail(const char* op, const std::string& what) {
  throw std::runtime_error("CUDA error in " + std::string(op) + ": " + what);
}

// Launches kernel(arguments...) on `blocks` blocks of `threads` threads, a multiple of the warp size. Does
// nothing for zero blocks.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes, Stream stream,
            const Arguments&... arguments) {
  if (blocks == 0) return;
  if (blocks > INT32_MAX) fail(stream.op, std::to_string(blocks) + " blocks exceed the maximum grid size");
  const std::string error =
      launch_error(kernel, unsigned(blocks), unsigned(threads), shared_bytes, stream.handle, arguments...);
  if (!error.empty()) fail(stream.op, error);
}

// a * b, rounded before any addition. Otherwise compilers fuse the product with a following addition.
__device__ inline float mul_rn(float a, float b) {
  return ::fmaf(a, b, 0.0f);
}
__device__ inline double mul_rn(double a, double b) {
  return ::fma(a, b, 0.0);
}

// Like crnn::to_compute.
template <class Storage>
__device__ inline auto to_compute(Storage x) {
  if constexpr (std::is_same_v<Storage, Half>) {
    return half_to_float(x);
  } else {
    return crnn::to_compute(x);
  }
}

// Like crnn::FromCompute.
template <class Storage, class Real>
__device__ inline Storage from_compute(Real x) {
  if constexpr (std::is_same_v<Storage, Half>) {
    return float_to_half(x);
  } else {
    return FromCompute<Storage>::convert(x);
  }
}

}  // namespace crnn::gpu
