// The words of a lexicon as a trie over token classes; its nodes are the states.
#include "text/lexicon.h"

#include <pybind11/stl.h>

#include <vector>

#include "text/spellings.h"
#include "text/tables.h"
#include "text/trie.h"

namespace py = pybind11;

namespace crnn::text {
namespace {

constexpr int32_t kNoWord = -1;

// words: (spellings), the word of each spelling; the first word wins if several share one. separators:
// classes.
py::tuple word_trie(const IntArray& tokens, const IntArray& lengths, const IntArray& words,
                    const std::vector<int32_t>& separators) {
  if (words.size() != lengths.size()) throw py::index_error("words and lengths differ in size");
  Trie trie;
  std::vector<int32_t> word_of_state{kNoWord};
  const int64_t* word = words.data();
  for_each_spelling(tokens, lengths, [&](const int64_t* begin, const int64_t* end) {
    int32_t node = Trie::kRoot;
    for (const int64_t* token = begin; token < end; ++token) node = trie.extend(node, int32_t(*token));
    word_of_state.resize(size_t(trie.size()), kNoWord);
    if (word_of_state[node] == kNoWord) word_of_state[node] = int32_t(*word);
    ++word;
  });

  std::vector<Edge> edges;
  for (const int32_t separator : separators) edges.push_back({Trie::kRoot, separator, Trie::kRoot, 0});
  for (int32_t node = Trie::kRoot + 1; node < trie.size(); ++node) {
    edges.push_back({trie.parent(node), trie.symbol(node), node, 0});
  }
  const Edges sorted(edges, trie.size());
  return py::make_tuple(to_array(sorted.first_edge), to_array(sorted.edge_symbol),
                        to_array(sorted.edge_target), to_array(word_of_state));
}

}  // namespace

void bind_lexicon(py::module_& module) {
  module.def("word_trie", &word_trie, py::arg("tokens"), py::arg("lengths"), py::arg("words"),
             py::arg("separators"));
}

}  // namespace crnn::text
