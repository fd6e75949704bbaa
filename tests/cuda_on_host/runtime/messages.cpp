#include "runtime/messages.h"

#include <cstring>

namespace cuda_on_host {

std::string short_path(const std::string& path) {
  const size_t name = path.rfind('/');
  const size_t folder = name == std::string::npos || name == 0 ? name : path.rfind('/', name - 1);
  return path.substr(folder == std::string::npos ? 0 : folder + 1);
}

std::string format_location(const SourceLocation& location) {
  return short_path(location.file_name()) + ":" + std::to_string(location.line());
}

bool same_location(const SourceLocation& a, const SourceLocation& b) {
  const bool same_file = a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0;
  return same_file && a.line() == b.line() && a.column() == b.column();
}

const char* op_name(WarpOp op) {
  switch (op) {
    case WarpOp::kSync:
      return "__syncwarp";
    case WarpOp::kShuffle:
      return "__shfl_sync";
    case WarpOp::kShuffleUp:
      return "__shfl_up_sync";
    case WarpOp::kShuffleDown:
      return "__shfl_down_sync";
    case WarpOp::kShuffleXor:
      return "__shfl_xor_sync";
    case WarpOp::kBallot:
      return "__ballot_sync";
    case WarpOp::kAny:
      return "__any_sync";
    case WarpOp::kAll:
      return "__all_sync";
  }
  return "";
}

}  // namespace cuda_on_host
