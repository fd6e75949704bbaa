// Whether a kernel computes the softmax statistics of rows, for host and device.
#pragma once

namespace crnn {

// kNone: rows hold log-probabilities. kCompute: compute the statistics. kReuse: an earlier launch has stored
// them.
enum class StatisticsMode { kNone, kCompute, kReuse };

}  // namespace crnn
