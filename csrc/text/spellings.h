// Words spelled in token classes, as Python passes them to lexicons and hot words.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

namespace crnn::text {

using IntArray = pybind11::array_t<int64_t, pybind11::array::c_style>;

constexpr int64_t kMaxClasses = 1 << 20;

// Calls visit(begin, end) for each spelling. tokens: the concatenated spellings; lengths: (spellings).
template <class Visit>
void for_each_spelling(const IntArray& tokens, const IntArray& lengths, Visit visit) {
  const int64_t* begin = tokens.data();
  const int64_t* const end = begin + tokens.size();
  for (const int64_t* token = begin; token < end; ++token) {
    if (*token < 0 || *token >= kMaxClasses) throw pybind11::index_error("tokens must be classes");
  }
  for (pybind11::ssize_t i = 0; i < lengths.size(); ++i) {
    const int64_t length = lengths.data()[i];
    if (length < 0 || length > end - begin) throw pybind11::index_error("lengths exceed tokens");
    visit(begin, begin + length);
    begin += length;
  }
}

}  // namespace crnn::text
