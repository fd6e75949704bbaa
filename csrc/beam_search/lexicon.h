// A lexicon: a trie of words spelled in tokens, as flat arrays, for host and device.
#pragma once

#include <limits>

#include "beam_search/automaton.h"

namespace crnn::beam_search {

struct Lexicon {
  // States in addition to those of the trie.
  static constexpr int32_t kUnknownWord = -1;  // inside a word that is not in the lexicon
  static constexpr int32_t kNoLexicon = -2;    // the sample has no lexicon
  static constexpr int32_t kNoWord = -1;

  Edges edges;                  // separators lead from a root back to it
  const int32_t* word_of;       // (states): the word spelled there; -1 for none
  const int32_t* root;          // (N): each sample's first state, or kNoLexicon
  const double* unknown_score;  // (N): score of a word that is not in the lexicon; -inf forbids them
  int32_t words;                // number of words, also the index of the unknown word

  // Result of a token or of the end of the text.
  struct Step {
    int32_t state;
    int32_t completed_word;  // kNoWord if no word was completed
    bool found_unknown;      // a word proved not to be in the lexicon
  };

  CRNN_INLINE Step step(int32_t state, int32_t token, int64_t n) const {
    if (state != kUnknownWord) {
      const int32_t edge = edges.find(state, token);
      if (edge >= 0) return {edges.target[edge], kNoWord, false};
    }
    const int32_t separator = edges.find(root[n], token);
    if (separator < 0 || edges.target[separator] != root[n]) {
      return {kUnknownWord, kNoWord, state != kUnknownWord};
    }
    return {root[n], word_at(state), is_partial(state)};
  }

  // The end of the text acts as a separator, unless no word has begun.
  CRNN_INLINE Step end(int32_t state, int64_t n) const {
    if (state == root[n]) return {state, kNoWord, false};
    return {root[n], word_at(state), is_partial(state)};
  }

 private:
  CRNN_INLINE int32_t word_at(int32_t state) const {
    return state == kUnknownWord || word_of[state] < 0 ? words : word_of[state];
  }
  // Whether the state is a proper prefix of words, and not a word.
  CRNN_INLINE bool is_partial(int32_t state) const { return state != kUnknownWord && word_of[state] < 0; }
};

}  // namespace crnn::beam_search
