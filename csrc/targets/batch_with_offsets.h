// The targets and lengths of a batch on a GPU: owns the memory that kernels need besides the tensors.
#pragma once

#include "common/cuda_stream.h"
#include "targets/batch.h"
#include "targets/target_offsets.cuh"

namespace crnn {

inline Tensor to_cpu(const Tensor& tensor) {
  return torch::stable::to(tensor, torch::stable::Device(torch::headeronly::DeviceType::CPU));
}

// A DeviceBatch whose target offsets are computed on the device.
class BatchWithOffsets {
 public:
  BatchWithOffsets(const BatchShape& shape, int64_t blank, const Tensor& targets, const Tensor& input_lengths,
                   const Tensor& target_lengths, gpu::Stream stream)
      : target_offsets_(new_tensor(targets, {shape.padded ? 0 : shape.texts()}, ScalarType::Long)),
        batch_{shape,
               blank,
               IndexView(targets),
               IndexView(input_lengths),
               IndexView(target_lengths),
               data<int64_t>(target_offsets_)} {
    launch_target_offsets(batch_, data<int64_t>(target_offsets_), stream);
  }

  const DeviceBatch& operator*() const { return batch_; }

 private:
  Tensor target_offsets_;
  DeviceBatch batch_;
};

}  // namespace crnn
