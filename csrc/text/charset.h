// Maps the characters (code points) of texts to the classes of a CTC network, and classes back to texts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crnn::text {

class Charset {
 public:
  // characters: UTF-8, every code point once. They fill the classes around the blank, in order.
  Charset(std::string_view characters, int64_t blank);

  struct Encoded {
    std::vector<int64_t> targets;  // of all texts, one after the other
    std::vector<int64_t> lengths;  // (N)
    int64_t unknown = 0;           // how many characters were left out, because the charset lacks them
  };

  // texts: (N) in UTF-8. A surrogate in its three-byte form is one more character that the charset lacks.
  Encoded encode(const std::vector<std::string_view>& texts) const;

  struct Decoded {
    std::vector<std::string> texts;  // (N) in UTF-8
    std::optional<int64_t> invalid;  // the first index in `tokens` of a class without a character
  };

  // Text n is read from tokens[starts[n]] to tokens[starts[n] + lengths[n] - 1], without the negative ones.
  // starts, lengths: (count). Stops at the first invalid token.
  Decoded decode(const int64_t* tokens, const int64_t* starts, const int64_t* lengths, int64_t count) const;

 private:
  static constexpr int32_t kUnknown = -1;

  // By code point, up to the highest one: at most 4.25 MiB, and a look-up is one comparison and one read.
  std::vector<int32_t> classes_;
  std::vector<std::string> characters_;  // by class, in UTF-8; empty for the blank
};

}  // namespace crnn::text
