// The forward pass on a GPU. Compiled once, in forward.cu, for all operators that use it.
#pragma once

#include "common/cuda_stream.h"
#include "common/stable.h"
#include "forward_backward/saved.h"
#include "targets/device_batch.h"

namespace crnn::forward_backward {

// logits: (T, N, C); losses: (texts), or () with a reduction; saved: filled for the backward pass if
// options.with_grad.
void run_forward(const Tensor& logits, const DeviceBatch& batch, bool normalize, const LossOptions& options,
                 const Tensor& losses, const Tensor& saved, gpu::Stream stream);

}  // namespace crnn::forward_backward
