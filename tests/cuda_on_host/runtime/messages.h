// Source locations and names of operations, for error messages.
#pragma once

#include <string>

#include "runtime/scheduler.h"

namespace cuda_on_host {

// The last folder and the file name of a path: operators have files with equal names.
std::string short_path(const std::string& path);

// short_path:line
std::string format_location(const SourceLocation& location);

bool same_location(const SourceLocation& a, const SourceLocation& b);

// The CUDA function of an operation.
const char* op_name(WarpOp op);

}  // namespace cuda_on_host
