// Back-off n-gram models.
#pragma once

#include <pybind11/pybind11.h>

#include <deque>
#include <string>
#include <vector>

#include "text/tables.h"
#include "text/trie.h"

namespace crnn::text {

// Every prefix of an n-gram is in the trie. Prefixes that a pruned file lacks are implied: their probability
// is the one that back-off gives.
struct NGrams {
  static constexpr int32_t kUnknownWord = 0;  // <unk>; every model has one
  static constexpr int32_t kNoWord = -1;

  int32_t order = 0;
  std::deque<std::string> words;  // by index
  int32_t begin_word = kNoWord;   // <s>
  int32_t end_word = kNoWord;     // </s>
  Trie trie;                      // over word indices
  std::vector<float> log_prob;    // (nodes) of the last word given the others, in nats; NaN: implied
  std::vector<float> back_off;    // (nodes) in nats; 0 if the node is not a context
  std::vector<int32_t> suffix;    // (nodes) the context to back off to; see Trie::suffixes

  // Computes `suffix` and the probabilities of implied n-grams.
  void finalize();

  // Log-probability of a word after a context.
  float log_prob_after(int32_t context, int32_t word) const;

  // The automaton over symbols 0 to word_of_symbol.size() - 1, each of which stands for a word.
  Automaton automaton(const std::vector<int32_t>& word_of_symbol) const;
};

void bind_ngrams(pybind11::module_& module);

}  // namespace crnn::text
