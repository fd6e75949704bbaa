// Where the softmax statistics of rows come from; for host and device.
#pragma once

namespace crnn {

// Of log-probabilities there are none, of logits they are still to be computed, or they are there already.
enum class StatisticsMode { kNone, kCompute, kReuse };

}  // namespace crnn
