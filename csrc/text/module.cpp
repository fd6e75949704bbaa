// The Python module crnn_ext._text: bindings and nothing else. Arguments are checked in crnn_ext/text.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "text/charset.h"

namespace py = pybind11;

namespace crnn::text {
namespace {

using IntArray = py::array_t<int64_t, py::array::c_style>;

// A NumPy array that owns the vector's memory.
template <class T>
py::array_t<T> as_array(std::vector<T>&& values) {
  auto* owned = new std::vector<T>(std::move(values));
  const py::capsule owner(owned, [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
  return py::array_t<T>(py::ssize_t(owned->size()), owned->data(), owner);
}

py::tuple encode(const Charset& charset, const std::vector<std::string_view>& texts) {
  Charset::Encoded result;
  {
    const py::gil_scoped_release release;
    result = charset.encode(texts);
  }
  return py::make_tuple(as_array(std::move(result.targets)), as_array(std::move(result.lengths)),
                        result.unknown);
}

py::tuple decode(const Charset& charset, const IntArray& tokens, const IntArray& starts,
                 const IntArray& lengths) {
  Charset::Decoded result;
  {
    const py::gil_scoped_release release;
    result = charset.decode(tokens.data(), starts.data(), lengths.data(), lengths.size());
  }
  return py::make_tuple(std::move(result.texts), result.invalid);
}

void bind_charset(py::module_& module) {
  py::class_<Charset>(module, "Charset")
      .def(py::init<std::string_view, int64_t>(), py::arg("characters"), py::arg("blank"))
      .def("encode", &encode, py::arg("texts"))
      .def("decode", &decode, py::arg("tokens"), py::arg("starts"), py::arg("lengths"));
}

}  // namespace
}  // namespace crnn::text

PYBIND11_MODULE(_text, module) {
  crnn::text::bind_charset(module);
}
