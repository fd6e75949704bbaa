#pragma once

#include <string>
#include <string_view>

namespace crnn::text {

// Whether bytes are well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view bytes);

// Quotes bytes for a message: truncated if long; backslashes, quotes, control characters and invalid UTF-8 as
// \xNN.
std::string quoted(std::string_view bytes);

}  // namespace crnn::text
