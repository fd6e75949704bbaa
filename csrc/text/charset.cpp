#include "text/charset.h"

#include "text/utf8.h"

namespace crnn::text {

Charset::Charset(std::string_view characters, int64_t blank) {
  const char* position = characters.data();
  const char* end = position + characters.size();
  while (position != end) {
    if (int64_t(characters_.size()) == blank) characters_.emplace_back();
    const char* begin = position;
    const char32_t code_point = next_code_point(position, end);
    if (code_point >= classes_.size()) classes_.resize(code_point + 1, kUnknown);
    classes_[code_point] = int32_t(characters_.size());
    characters_.emplace_back(begin, position);
  }
}

Charset::Encoded Charset::encode(const std::vector<std::string_view>& texts) const {
  Encoded result;
  result.lengths.reserve(texts.size());
  size_t bytes = 0;
  for (const std::string_view text : texts) bytes += text.size();
  result.targets.reserve(bytes);  // enough, and what characters of several bytes leave over is never touched
  for (const std::string_view text : texts) {
    const size_t first = result.targets.size();
    const char* position = text.data();
    const char* end = position + text.size();
    while (position != end) {
      const char32_t code_point = next_code_point(position, end);
      const int32_t found = code_point < classes_.size() ? classes_[code_point] : kUnknown;
      if (found == kUnknown) {
        ++result.unknown;
      } else {
        result.targets.push_back(found);
      }
    }
    result.lengths.push_back(int64_t(result.targets.size() - first));
  }
  return result;
}

Charset::Decoded Charset::decode(const int64_t* tokens, const int64_t* starts, const int64_t* lengths,
                                 int64_t count) const {
  Decoded result;
  result.texts.resize(size_t(count));
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t i = starts[n]; i < starts[n] + lengths[n]; ++i) {
      if (tokens[i] < 0) continue;
      if (tokens[i] >= int64_t(characters_.size()) || characters_[size_t(tokens[i])].empty()) {
        result.invalid = i;
        return result;
      }
      result.texts[size_t(n)] += characters_[size_t(tokens[i])];
    }
  }
  return result;
}

}  // namespace crnn::text
