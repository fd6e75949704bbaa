#include "text/arpa.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "text/utf8.h"

namespace py = pybind11;

namespace crnn::text {
namespace {

constexpr double kLn10 = 2.302585092994045684;
// log10 of the probability of <unk> if the file has none, as in KenLM.
constexpr double kDefaultUnknownLog10 = -100;
constexpr float kImplied = std::numeric_limits<float>::quiet_NaN();
constexpr std::string_view kBlanks = " \t";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Without surrounding blanks and a trailing carriage return.
std::string_view stripped(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  const size_t first = line.find_first_not_of(kBlanks);
  if (first == line.npos) return {};
  return line.substr(first, line.find_last_not_of(kBlanks) - first + 1);
}

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

template <class T>
bool parse(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

ArpaReader::ArpaReader() {
  ngrams_.words.push_back("<unk>");
  word_indices_.emplace(ngrams_.words.back(), NGrams::kUnknownWord);
  ngrams_.log_prob.assign(1, 0);
  ngrams_.back_off.assign(1, 0);
  add_child(Trie::kRoot, NGrams::kUnknownWord);
}

template <class... Args>
void ArpaReader::fail(const Args&... args) const {
  std::ostringstream message;
  message << "line " << line_ << ": ";
  (message << ... << args);
  throw std::invalid_argument(message.str());
}

void ArpaReader::read(std::string_view chunk) {
  while (!chunk.empty()) {
    const size_t end = chunk.find('\n');
    const std::string_view piece = chunk.substr(0, end);
    if (pending_.size() + piece.size() > kMaxLineBytes) {
      ++line_;
      fail("a line must have at most 2^20 bytes");
    }
    if (end == chunk.npos) {
      pending_ += piece;
      return;
    }
    ++line_;
    if (pending_.empty()) {
      read_line(piece);
    } else {
      read_line(pending_ += piece);
      pending_.clear();
    }
    chunk.remove_prefix(end + 1);
  }
}

NGrams ArpaReader::finish() {
  if (!pending_.empty()) {
    ++line_;
    read_line(pending_);
  }
  if (state_ == State::kPreamble) fail("not an ARPA file: it ends without a line \\data\\");
  if (state_ != State::kEnd) fail("the file ends without a line \\end\\");
  float& unknown = ngrams_.log_prob[ngrams_.trie.find(Trie::kRoot, NGrams::kUnknownWord)];
  if (std::isnan(unknown)) unknown = float(kDefaultUnknownLog10 * kLn10);
  ngrams_.order = int32_t(counts_.size());
  ngrams_.finalize();
  NGrams ngrams = std::move(ngrams_);
  *this = ArpaReader();
  return ngrams;
}

void ArpaReader::read_line(std::string_view line) {
  if (line_ == 1 && starts_with(line, kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  line = stripped(line);
  if (line.empty()) return;
  switch (state_) {
    case State::kPreamble:
      if (line == "\\data\\") state_ = State::kCounts;
      return;
    case State::kCounts:
      return line[0] == '\\' ? read_header(line) : read_count(line);
    case State::kNGrams:
      return line[0] == '\\' ? read_header(line) : read_ngram(line);
    case State::kEnd:
      fail("nothing may follow \\end\\, got ", quoted(line));
  }
}

// "ngram 2=1234"; some toolkits put spaces around the numbers.
void ArpaReader::read_count(std::string_view line) {
  const size_t equals = line.find('=');
  size_t order;
  int64_t count;
  if (!starts_with(line, "ngram") || equals == line.npos ||
      !parse(stripped(line.substr(5, equals - 5)), &order) ||
      !parse(stripped(line.substr(equals + 1)), &count) || count < 0) {
    fail("the line must be 'ngram <order>=<count>', got ", quoted(line));
  }
  if (order != counts_.size() + 1) {
    fail("counts must be given for orders 1, 2, 3 and so on, got order ", order, " after ", counts_.size());
  }
  counts_.push_back(count);
}

// "\2-grams:" or "\end\".
void ArpaReader::read_header(std::string_view line) {
  if (counts_.empty()) fail("a line 'ngram 1=<count>' must come before ", quoted(line));
  end_section();
  const bool is_end = section_ == counts_.size();
  state_ = is_end ? State::kEnd : State::kNGrams;
  const std::string expected = is_end ? "\\end\\" : '\\' + std::to_string(++section_) + "-grams:";
  if (line != expected) fail("the line must be ", expected, ", got ", quoted(line));
}

void ArpaReader::end_section() {
  if (section_ == 0) return;
  if (seen_ != counts_[section_ - 1]) {
    fail("there must be ", counts_[section_ - 1], ' ', section_, "-grams as declared, got ", seen_);
  }
  seen_ = 0;
  if (section_ == 1 && counts_.size() > 1 && (ngrams_.begin_word < 0 || ngrams_.end_word < 0)) {
    fail("a model of order ", counts_.size(), " must have <s> and </s> among its 1-grams, but ",
         ngrams_.begin_word < 0 ? "<s>" : "</s>", " is missing");
  }
}

// "<log10 of the probability> <word> ... <word> [<log10 of the back-off weight>]".
void ArpaReader::read_ngram(std::string_view line) {
  fields_.clear();
  while (!line.empty()) {
    const size_t end = line.find_first_of(kBlanks);
    fields_.push_back(line.substr(0, end));
    const size_t next = line.find_first_not_of(kBlanks, end);
    line.remove_prefix(next == line.npos ? line.size() : next);
  }
  if (fields_.size() != section_ + 1 && fields_.size() != section_ + 2) {
    fail("a line of \\", section_, "-grams: must have a probability, ", section_,
         " words and optionally a back-off weight, got ", fields_.size(), " fields");
  }
  if (++seen_ > counts_[section_ - 1]) {
    fail("there must be ", counts_[section_ - 1], ' ', section_, "-grams as declared, got more");
  }
  const float log_prob = parse_log10(fields_[0], "log10 of a probability", 0);
  float back_off = 0;
  if (fields_.size() == section_ + 2) {
    // The bound keeps sums of these from overflowing.
    back_off = parse_log10(fields_.back(), "log10 of a back-off weight", 1e6);
    if (section_ == counts_.size() && back_off != 0) {
      fail("an n-gram of the highest order must have no back-off weight, got ", quoted(fields_.back()));
    }
  }
  int32_t node = Trie::kRoot;
  for (size_t i = 1; i <= section_; ++i) node = add_child(node, word_index(fields_[i]));
  if (!std::isnan(ngrams_.log_prob[node])) fail("duplicate n-gram");
  ngrams_.log_prob[node] = log_prob;
  ngrams_.back_off[node] = back_off;
}

float ArpaReader::parse_log10(std::string_view text, const char* name, double maximum) const {
  double value;
  if (!parse(text, &value) || std::isnan(value)) fail("the ", name, " must be a number, got ", quoted(text));
  if (value > maximum) fail("the ", name, " must be at most ", maximum, ", got ", quoted(text));
  return float(value * kLn10);
}

int32_t ArpaReader::word_index(std::string_view word) {
  if (word == "<UNK>") word = "<unk>";
  const auto found = word_indices_.find(word);
  if (found != word_indices_.end()) return found->second;
  if (section_ > 1) fail("every word must be a 1-gram, got ", quoted(word));
  if (!is_utf8(word)) fail("words must be UTF-8, got ", quoted(word));
  const int32_t index = int32_t(ngrams_.words.size());
  ngrams_.words.emplace_back(word);
  word_indices_.emplace(ngrams_.words.back(), index);
  if (word == "<s>") ngrams_.begin_word = index;
  if (word == "</s>") ngrams_.end_word = index;
  return index;
}

int32_t ArpaReader::add_child(int32_t node, int32_t word) {
  const int32_t child = ngrams_.trie.extend(node, word);
  if (child == int32_t(ngrams_.log_prob.size())) {
    ngrams_.log_prob.push_back(kImplied);
    ngrams_.back_off.push_back(0);
  }
  return child;
}

void bind_arpa(py::module_& module) {
  py::class_<ArpaReader>(module, "ArpaReader")
      .def(py::init<>())
      .def(
          "read",
          [](ArpaReader& reader, const py::bytes& chunk) {
            const std::string_view bytes = chunk;
            py::gil_scoped_release release;
            reader.read(bytes);
          },
          py::arg("chunk"))
      .def("finish", &ArpaReader::finish, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("lines", &ArpaReader::lines);
}

}  // namespace crnn::text
