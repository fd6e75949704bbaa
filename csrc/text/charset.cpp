// Conversion between texts and the classes of a CTC network. crnn_ext/text/charset.py checks the arguments;
// the checks here only keep reads within the arrays.
#include "text/charset.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace crnn::text {
namespace {

using IntArray = py::array_t<int64_t, py::array::c_style>;

constexpr int32_t kUnknown = -1;
constexpr char32_t kNoCharacter = 0xFFFFFFFF;

class Charset {
 public:
  // characters: distinct code points; they take the classes from 0 on, skipping the blank.
  Charset(std::u32string characters, int64_t blank) : characters_(std::move(characters)) {
    if (blank < 0 || blank > int64_t(characters_.size()))
      throw py::index_error("Charset: blank out of range");
    characters_.insert(size_t(blank), 1, kNoCharacter);
    for (size_t label = 0; label < characters_.size(); ++label) {
      const char32_t character = characters_[label];
      if (character == kNoCharacter) continue;
      if (character >= classes_.size()) classes_.resize(character + 1, kUnknown);
      classes_[character] = int32_t(label);
    }
  }

  // texts: (N) str. Returns the concatenated targets of all texts, their lengths (N), and the number of
  // characters that were skipped because the charset lacks them.
  py::tuple encode(const py::tuple& texts) const {
    int64_t total = 0;
    for (const py::handle text : texts) {
      if (!PyUnicode_Check(text.ptr())) throw py::type_error("encode: texts must be str");
      total += PyUnicode_GET_LENGTH(text.ptr());
    }
    IntArray targets(total);
    IntArray lengths(py::ssize_t(texts.size()));
    int64_t filled = 0;
    int64_t* const target = targets.mutable_data();
    int64_t* length = lengths.mutable_data();
    for (const py::handle text : texts) {
      const int64_t first = filled;
      const int kind = PyUnicode_KIND(text.ptr());
      const void* const code_points = PyUnicode_DATA(text.ptr());
      const py::ssize_t count = PyUnicode_GET_LENGTH(text.ptr());
      for (py::ssize_t i = 0; i < count; ++i) {
        const char32_t code_point = PyUnicode_READ(kind, code_points, i);
        const int32_t label = code_point < classes_.size() ? classes_[code_point] : kUnknown;
        if (label != kUnknown) target[filled++] = label;
      }
      *length++ = filled - first;
    }
    return py::make_tuple(targets[py::slice(0, filled, 1)], lengths, total - filled);
  }

  // Text n is tokens[starts[n]] to tokens[starts[n] + lengths[n] - 1] without negative tokens. starts,
  // lengths: (N). Returns the texts and None; or, if a token's class has no character, the texts up to the
  // first such token and its index.
  py::tuple decode(const IntArray& tokens, const IntArray& starts, const IntArray& lengths) const {
    if (starts.size() != lengths.size()) throw py::index_error("decode: starts and lengths differ in size");
    const int64_t* const token = tokens.data();
    std::optional<int64_t> invalid;
    py::list texts;
    std::u32string text;
    for (py::ssize_t n = 0; n < lengths.size() && !invalid; ++n) {
      const int64_t start = starts.data()[n];
      const int64_t length = lengths.data()[n];
      if (start < 0 || length < 0 || length > tokens.size() - start) {
        throw py::index_error("decode: starts and lengths exceed tokens");
      }
      text.clear();
      for (int64_t i = start; i < start + length; ++i) {
        const int64_t label = token[i];
        if (label < 0) continue;
        if (label >= int64_t(characters_.size()) || characters_[size_t(label)] == kNoCharacter) {
          invalid = i;
          break;
        }
        text.push_back(characters_[size_t(label)]);
      }
      texts.append(py::reinterpret_steal<py::str>(
          PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, text.data(), py::ssize_t(text.size()))));
    }
    return py::make_tuple(texts, invalid);
  }

 private:
  // By code point, up to the highest one: at most 4.25 MiB. A look-up is one comparison and one read.
  std::vector<int32_t> classes_;
  std::u32string characters_;  // by class; kNoCharacter for the blank
};

}  // namespace

void bind_charset(py::module_& module) {
  py::class_<Charset>(module, "Charset")
      .def(py::init<std::u32string, int64_t>(), py::arg("characters"), py::arg("blank"))
      .def("encode", &Charset::encode, py::arg("texts"))
      .def("decode", &Charset::decode, py::arg("tokens"), py::arg("starts"), py::arg("lengths"));
}

}  // namespace crnn::text
