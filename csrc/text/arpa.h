// ARPA files, the common text format of back-off n-gram models.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/ngrams.h"

namespace crnn::text {

// Reads a file chunk by chunk; no more of it is held than a line. Throws std::invalid_argument with
// "line <number>: <what is wrong>".
class ArpaReader {
 public:
  ArpaReader();

  void read(std::string_view chunk);
  // The n-grams, once the whole file has been read; the reader is then as new.
  NGrams finish();

  // How many lines have ended so far.
  int64_t lines() const { return line_; }

 private:
  enum class Part { kPreamble, kCounts, kNGrams, kEnd };
  static constexpr size_t kLongestLine = 1 << 20;

  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const;
  void read_line(std::string_view line);
  void read_count(std::string_view line);
  void read_header(std::string_view line);
  void read_ngram(std::string_view line);
  void end_section();
  int32_t word_number(std::string_view word);
  float number(std::string_view text, const char* name, double most) const;
  int32_t join(int32_t node, int32_t word);

  NGrams ngrams_;
  std::unordered_map<std::string_view, int32_t> numbers_;  // of the words
  Part part_ = Part::kPreamble;
  std::vector<int64_t> counts_;           // of n-grams that the file announces, by order from 1
  size_t section_ = 0;                    // the order of the n-grams that are being read
  int64_t seen_ = 0;                      // how many of them there were
  std::vector<std::string_view> fields_;  // of the line
  std::string pending_;                   // the beginning of a line that ends in the next chunk
  int64_t line_ = 0;
};

void bind_arpa(pybind11::module_& module);

}  // namespace crnn::text
