// What kernels may use of CUDA: its keywords and built-in variables, __syncthreads, shuffles and votes with
// an explicit mask, and what is declared here. No other file of the kernels includes a CUDA header.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>

#include "common/gpu_platform.h"
#include "common/half.h"

namespace crnn::gpu {

constexpr int kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffffu;

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
  const std::string error =
      launch_error(kernel, unsigned(blocks), unsigned(threads), shared_bytes, stream.handle, arguments...);
  if (!error.empty()) fail(stream.op, error);
}

// a * b, rounded before anything is added to it. Compilers fuse a product with an addition behind it.
__device__ inline float mul_rn(float a, float b) {
  return ::fmaf(a, b, 0.0f);
}
__device__ inline double mul_rn(double a, double b) {
  return ::fma(a, b, 0.0);
}

// As crnn::to_compute.
template <class Storage>
__device__ inline auto to_compute(Storage x) {
  if constexpr (std::is_same_v<Storage, Half>) {
    return half_to_float(x);
  } else {
    return crnn::to_compute(x);
  }
}

// As crnn::FromCompute.
template <class Storage, class Real>
__device__ inline Storage from_compute(Real x) {
  if constexpr (std::is_same_v<Storage, Half>) {
    return float_to_half(x);
  } else {
    return FromCompute<Storage>::convert(x);
  }
}

}  // namespace crnn::gpu
