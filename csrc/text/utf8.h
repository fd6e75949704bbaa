#pragma once

#include <string>
#include <string_view>

namespace crnn::text {

// Whether these bytes are well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view bytes);

// Bytes from a file as messages quote them: cut if long; backslashes, quotes and what is not printable
// UTF-8 as \xNN.
std::string quoted(std::string_view bytes);

}  // namespace crnn::text
