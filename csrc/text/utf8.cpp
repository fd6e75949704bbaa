#include "text/utf8.h"

#include <cstdint>

namespace crnn::text {
namespace {

// Size in bytes of the first character; 0 if it is not well-formed.
size_t character_size(std::string_view bytes) {
  const auto byte = [bytes](size_t i) { return uint32_t(uint8_t(bytes[i])); };
  if (byte(0) < 0x80) return 1;
  const size_t size = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : 2;
  if (byte(0) < 0xC2 || byte(0) > 0xF4 || bytes.size() < size) return 0;
  uint32_t code_point = byte(0) & (0x7F >> size);
  for (size_t i = 1; i < size; ++i) {
    if (byte(i) >> 6 != 0b10) return 0;
    code_point = code_point << 6 | (byte(i) & 0x3F);
  }
  const uint32_t minimum = size == 4 ? 0x10000 : size == 3 ? 0x800 : 0x80;
  const bool is_surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
  return code_point >= minimum && code_point <= 0x10FFFF && !is_surrogate ? size : 0;
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t size = character_size(bytes);
    if (size == 0) return false;
    bytes.remove_prefix(size);
  }
  return true;
}

std::string quoted(std::string_view bytes) {
  constexpr size_t kMaxLength = 60;
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "'";
  while (!bytes.empty() && text.size() < kMaxLength) {
    const size_t size = character_size(bytes);
    const unsigned char first = static_cast<unsigned char>(bytes[0]);
    const bool is_control = first < 0x20 || first == 0x7F;
    if (size == 0 || is_control || first == '\\' || first == '\'') {
      text += {'\\', 'x', kDigits[first >> 4], kDigits[first & 15]};
      bytes.remove_prefix(1);
    } else {
      text += bytes.substr(0, size);
      bytes.remove_prefix(size);
    }
  }
  return text + (bytes.empty() ? "'" : "...'");
}

}  // namespace crnn::text
