// Instantiates the recursion for double.
#include "forward_backward/recursion.cuh"

namespace crnn::forward_backward {

template void launch_recursion(const DeviceBatch&, const RecursionBuffers<double>&, const LossOptions&,
                               double*, double*, gpu::Stream);

}  // namespace crnn::forward_backward
