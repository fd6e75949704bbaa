// Parser of ARPA files, the common text format of back-off n-gram models.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/ngrams.h"

namespace crnn::text {

// Reads a file in chunks and buffers at most one line. Throws std::invalid_argument with the message
// "line <number>: <problem>".
class ArpaReader {
 public:
  ArpaReader();

  void read(std::string_view chunk);
  // Returns the n-grams after the whole file has been read, and resets the reader.
  NGrams finish();

  // Number of complete lines so far.
  int64_t lines() const { return line_; }

 private:
  enum class State { kPreamble, kCounts, kNGrams, kEnd };
  static constexpr size_t kMaxLineBytes = 1 << 20;

  template <class... Args>
  [[noreturn]] void fail(const Args&... args) const;
  void read_line(std::string_view line);
  void read_count(std::string_view line);
  void read_header(std::string_view line);
  void read_ngram(std::string_view line);
  void end_section();
  int32_t word_index(std::string_view word);
  float parse_log10(std::string_view text, const char* name, double maximum) const;
  int32_t add_child(int32_t node, int32_t word);

  NGrams ngrams_;
  std::unordered_map<std::string_view, int32_t> word_indices_;
  State state_ = State::kPreamble;
  std::vector<int64_t> counts_;           // declared numbers of n-grams, by order - 1
  size_t section_ = 0;                    // order of the current section; 0: none yet
  int64_t seen_ = 0;                      // n-grams of the section so far
  std::vector<std::string_view> fields_;  // of the current line
  std::string pending_;                   // start of a line that continues in the next chunk
  int64_t line_ = 0;
};

void bind_arpa(pybind11::module_& module);

}  // namespace crnn::text
