// Shared by the backends of log_probability.
#pragma once

namespace crnn::log_probability {

constexpr const char* kOp = "log_probability";

}  // namespace crnn::log_probability
