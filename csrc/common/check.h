// Argument checks. A failed check throws std::runtime_error("<op>: <what is wrong>") without a source path.
// torch turns it into RuntimeError, and crnn_ext's Python wrappers into ValueError.
#pragma once

#include <sstream>
#include <stdexcept>

namespace crnn {

template <class... Parts>
[[noreturn]] void fail(const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << op << ": ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

template <class... Parts>
void check(bool condition, const char* op, const Parts&... parts) {
  if (!condition) fail(op, parts...);
}

}  // namespace crnn
