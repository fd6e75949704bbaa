// UTF-8, read one code point at a time.
#pragma once

namespace crnn::text {

// Moves `position`, which is before `end`, past one code point and returns it. Bytes that are not UTF-8 give
// some number below 2^21, and `end` is never passed.
inline char32_t next_code_point(const char*& position, const char* end) {
  const auto lead = static_cast<unsigned char>(*position++);
  if (lead < 0x80) return lead;
  const int following = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  char32_t code_point = lead & (0x3F >> following);
  for (int i = 0; i < following && position != end; ++i) code_point = code_point << 6 | (*position++ & 0x3F);
  return code_point;
}

}  // namespace crnn::text
