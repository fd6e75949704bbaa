// The recursion in double.
#include "ctc_loss/recursion.cuh"

namespace crnn::ctc_loss {

template void launch_recursion(const DeviceBatch&, const RecursionBuffers<double>&, const LossOptions&,
                               double*, double*, gpu::Stream);

}  // namespace crnn::ctc_loss
