// The Python module crnn_ext._text: one line for each class, which the file of its name binds.
#include "text/charset.h"

PYBIND11_MODULE(_text, module) {
  crnn::text::bind_charset(module);
}
