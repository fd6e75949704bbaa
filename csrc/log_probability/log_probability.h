// What the backends of log_probability factor on torch's side.
#pragma once

namespace crnn::log_probability {

constexpr const char* kOp = "log_probability";

}  // namespace crnn::log_probability
