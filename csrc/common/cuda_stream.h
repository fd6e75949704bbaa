// The device and the stream on which the kernels of an operator run: those of its tensor.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include "common/gpu.h"

// The dispatch key under which the operators' kernels are registered.
#define CRNN_DISPATCH_KEY CUDA

// Lies in libtorch_cuda. Weak, so that the library loads beside a CPU build of torch as well. (torch's header
// declares it too where USE_CUDA is defined, and the compiler compares the two.)
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index,
                                                                                   void** stream);

namespace crnn {

// Makes the tensor's device the current one for as long as this lives.
class DeviceScope {
 public:
  DeviceScope(const torch::stable::Tensor& tensor, const char* op)
      : guard_(tensor.get_device_index()), stream_{nullptr, op} {
    // Never the default stream instead: it would race with torch's own kernels, silently.
    if (aoti_torch_get_current_cuda_stream == nullptr) gpu::fail(op, "torch was built without CUDA");
    void* stream = nullptr;
    // torch 2.13 has a macro for this check; the headers before it do not.
    if (aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) != AOTI_TORCH_SUCCESS)
      gpu::fail(op, "torch gives no current stream");
    stream_.handle = static_cast<cudaStream_t>(stream);
  }

  gpu::Stream stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  gpu::Stream stream_;
};

}  // namespace crnn
