// The recursion in float.
#include "ctc_loss/recursion.cuh"

namespace crnn::ctc_loss {

template void launch_recursion(const DeviceBatch&, const RecursionBuffers<float>&, const LossOptions&, float*,
                               double*, gpu::Stream);

}  // namespace crnn::ctc_loss
