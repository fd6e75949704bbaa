#pragma once

#include <pybind11/pybind11.h>

namespace crnn::text {

void bind_lexicon(pybind11::module_& module);

}  // namespace crnn::text
