// Back-off n-gram models.
#pragma once

#include <pybind11/pybind11.h>

#include <deque>
#include <string>
#include <vector>

#include "text/tables.h"
#include "text/trie.h"

namespace crnn::text {

// Every prefix of an n-gram is one too. Those that the file lacks, as pruned files do, are implied: they have
// the probability that they get by back-off.
struct NGrams {
  static constexpr int32_t kUnknownWord = 0;  // <unk>, which every model has
  static constexpr int32_t kNoWord = -1;

  int32_t order = 0;
  std::deque<std::string> words;  // by number
  int32_t begin_word = kNoWord;   // <s>
  int32_t end_word = kNoWord;     // </s>
  Trie trie;                      // over the numbers of words
  std::vector<float> log_prob;    // (nodes) of the last word after the others, in nats; NaN: implied
  std::vector<float> back_off;    // (nodes) in nats; 0 for what is no context
  std::vector<int32_t> suffix;    // (nodes) see Trie::suffixes: what a context backs off to

  // Computes `suffix`, and the probabilities of implied n-grams.
  void complete();

  // The logarithm of the probability of a word after a context.
  float log_prob_after(int32_t context, int32_t word) const;

  // Over symbols 0 to word_of_symbol.size() - 1, each of which stands for a word.
  Automaton automaton(const std::vector<int32_t>& word_of_symbol) const;
};

void bind_ngrams(pybind11::module_& module);

}  // namespace crnn::text
