// Instantiates the recursion for float.
#include "forward_backward/recursion.cuh"

namespace crnn::forward_backward {

template void launch_recursion(const DeviceBatch&, const RecursionBuffers<float>&, const LossOptions&, float*,
                               double*, gpu::Stream);

}  // namespace crnn::forward_backward
