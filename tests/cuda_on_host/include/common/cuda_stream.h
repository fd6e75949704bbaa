// Replaces csrc/common/cuda_stream.h when kernels run on the CPU.
#pragma once

#include "common/gpu.h"

// A dispatch key without a device: tests call the kernels through it.
#define CRNN_DISPATCH_KEY PrivateUse3

namespace crnn {

class DeviceScope {
 public:
  template <class Tensor>
  DeviceScope(const Tensor&, const char* op) : stream_{nullptr, op} {}

  gpu::Stream stream() const { return stream_; }

 private:
  gpu::Stream stream_;
};

}  // namespace crnn
