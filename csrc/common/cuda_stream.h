// The device and stream on which the kernels of an operator run: those of its tensor.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include "common/gpu.h"

// Dispatch key under which the operators register their kernels.
#define CRNN_DISPATCH_KEY CUDA

// Defined in libtorch_cuda. Weak, so that the library also loads next to a CPU build of torch. (torch's
// header declares the function too if USE_CUDA is defined, and the compiler checks that both declarations
// agree.)
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index,
                                                                                   void** stream);

namespace crnn {

// Makes the tensor's device current for the lifetime of this object.
class DeviceScope {
 public:
  DeviceScope(const torch::stable::Tensor& tensor, const char* op)
      : guard_(tensor.get_device_index()), stream_{nullptr, op} {
    // Never fall back to the default stream: it would race silently with torch's own kernels.
    if (aoti_torch_get_current_cuda_stream == nullptr) gpu::fail(op, "torch was built without CUDA");
    void* stream = nullptr;
    // torch 2.13 has a macro for this check; earlier headers do not.
    if (aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) != AOTI_TORCH_SUCCESS)
      gpu::fail(op, "torch returned no current stream");
    stream_.handle = static_cast<cudaStream_t>(stream);
  }

  gpu::Stream stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  gpu::Stream stream_;
};

}  // namespace crnn
