// Words spelt by tokens: a trie in flat arrays, for host and device.
#pragma once

#include <limits>

#include "beam_search/automaton.h"

namespace crnn::beam_search {

struct Lexicon {
  // States besides those of the trie.
  static constexpr int32_t kUnknownWord = -1;  // within a word that the lexicon does not have
  static constexpr int32_t kNoLexicon = -2;    // the sample has none
  // Words besides those of the lexicon.
  static constexpr int32_t kNoWord = -1;

  Edges edges;                  // separators of words lead from a root back to it
  const int32_t* word_of;       // (states): the word that is spelt there; -1 for none
  const int32_t* root;          // (N): each sample's first state, or kNoLexicon
  const double* unknown_score;  // (N): for a word that is not in the lexicon; -inf forbids them
  int32_t words;                // the number of an unknown word

  // What a token, or the end, makes of a prefix.
  struct Step {
    int32_t state;
    int32_t ended_word;      // kNoWord if none ended
    bool counts_as_unknown;  // an unknown word showed itself
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
    return {root[n], word_at(state), is_unfinished(state)};
  }

  // The end of the text: as a separator would, and nothing where no word has begun.
  CRNN_INLINE Step end(int32_t state, int64_t n) const {
    if (state == root[n]) return {state, kNoWord, false};
    return {root[n], word_at(state), is_unfinished(state)};
  }

 private:
  CRNN_INLINE int32_t word_at(int32_t state) const {
    return state == kUnknownWord || word_of[state] < 0 ? words : word_of[state];
  }
  // A spelling that the lexicon has, but not as a whole word.
  CRNN_INLINE bool is_unfinished(int32_t state) const { return state != kUnknownWord && word_of[state] < 0; }
};

}  // namespace crnn::beam_search
