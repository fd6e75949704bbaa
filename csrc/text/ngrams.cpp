#include "text/ngrams.h"

#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <stdexcept>

namespace py = pybind11;

namespace crnn::text {

float NGrams::log_prob_after(int32_t context, int32_t word) const {
  for (float weight = 0;; context = suffix[context]) {
    const int32_t ngram = trie.find(context, word);
    if (ngram != Trie::kNone) return weight + log_prob[ngram];
    weight += back_off[context];
  }
}

void NGrams::finalize() {
  const std::vector<int32_t> nodes = trie.by_depth();
  suffix = trie.suffixes(nodes);
  for (const int32_t node : nodes) {
    if (!std::isnan(log_prob[node])) continue;
    const int32_t context = trie.parent(node);
    log_prob[node] = back_off[context] + log_prob_after(suffix[context], trie.symbol(node));
  }
}

Automaton NGrams::automaton(const std::vector<int32_t>& word_of_symbol) const {
  std::vector<std::vector<int32_t>> symbols_of(words.size());
  for (size_t symbol = 0; symbol < word_of_symbol.size(); ++symbol) {
    symbols_of.at(size_t(word_of_symbol[symbol])).push_back(int32_t(symbol));
  }
  const int32_t last_word = end_word == kNoWord ? kUnknownWord : end_word;

  // A text can contain the n-grams whose words have symbols: those are reachable. A context is an n-gram with
  // a back-off weight or a continuation.
  const std::vector<int32_t> nodes = trie.by_depth();
  std::vector<char> is_reachable(nodes.size(), false);
  std::vector<char> is_context(nodes.size(), false);
  size_t edge_count = 0;
  for (const int32_t node : nodes) {
    if (node == Trie::kRoot) {
      is_reachable[node] = is_context[node] = true;
      continue;
    }
    const int32_t parent = trie.parent(node);
    const int32_t word = trie.symbol(node);
    const size_t symbols = symbols_of[word].size();
    const bool is_begin = parent == Trie::kRoot && word == begin_word;
    is_reachable[node] = is_reachable[parent] && (symbols > 0 || is_begin);
    is_context[node] = back_off[node] != 0;
    if (is_reachable[node] || (is_reachable[parent] && word == last_word)) is_context[parent] = true;
    if (is_reachable[node]) edge_count += symbols;
  }
  if (edge_count > size_t(std::numeric_limits<int32_t>::max())) {
    throw std::length_error("an automaton must have at most 2^31 - 1 edges, got " +
                            std::to_string(edge_count));
  }

  // The states are the contexts, shorter ones first.
  std::vector<int32_t> state_of(nodes.size());
  std::vector<int32_t> context_of;
  for (const int32_t node : nodes) {
    if (is_reachable[node] && is_context[node]) {
      state_of[node] = int32_t(context_of.size());
      context_of.push_back(node);
    } else {
      state_of[node] = state_of[suffix[node]];
    }
  }

  std::vector<Edge> edges;
  edges.reserve(edge_count);
  for (const int32_t node : nodes) {
    if (node == Trie::kRoot || !is_reachable[node]) continue;
    for (const int32_t symbol : symbols_of[trie.symbol(node)]) {
      edges.push_back({state_of[trie.parent(node)], symbol, state_of[node], log_prob[node]});
    }
  }
  Automaton result{Edges(edges, int32_t(context_of.size())), {}, {}, {}, 0};
  for (const int32_t context : context_of) {
    result.fail_state.push_back(state_of[suffix[context]]);
    result.fail_weight.push_back(back_off[context]);
    result.final_weight.push_back(log_prob_after(context, last_word));
  }
  if (begin_word != kNoWord) result.start = state_of[trie.find(Trie::kRoot, begin_word)];
  return result;
}

void bind_ngrams(py::module_& module) {
  py::class_<NGrams>(module, "NGrams")
      .def_readonly("order", &NGrams::order)
      .def_readonly("words", &NGrams::words)
      .def(
          "automaton",
          [](const NGrams& ngrams, const std::vector<int32_t>& word_of_symbol) {
            py::gil_scoped_release release;
            const Automaton automaton = ngrams.automaton(word_of_symbol);
            py::gil_scoped_acquire acquire;
            return automaton.to_python();
          },
          py::arg("word_of_symbol"));
}

}  // namespace crnn::text
