#pragma once

#include <pybind11/pybind11.h>

namespace crnn::text {

void bind_hotwords(pybind11::module_& module);

}  // namespace crnn::text
