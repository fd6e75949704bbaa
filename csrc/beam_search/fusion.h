// Scores of language model, lexicon and hot words (shallow fusion), for host and device.
//
// Each is an automaton that reads a prefix token by token, so its score depends on the prefix alone. Scores
// are in nats.
#pragma once

#include "beam_search/lexicon.h"

namespace crnn::beam_search {

// No fusion: the score of a prefix is its log-probability.
struct NoFusion {
  static constexpr bool kHasFusion = false;
  struct State {
    double padding;  // see BeamEntry
  };
  CRNN_INLINE State start(int64_t) const { return {}; }
  CRNN_INLINE double step(State*, int32_t, int64_t) const { return 0; }
  CRNN_INLINE double end(const State&, int64_t) const { return 0; }
  CRNN_INLINE double largest_step() const { return 0; }
};

struct Fusion {
  static constexpr bool kHasFusion = true;

  struct State {
    int32_t lm, lexicon, hotwords;
    int32_t padding;  // see BeamEntry
  };

  // Unused parts have null pointers and state -1 (the lexicon: kNoLexicon).
  Automaton lm;
  int32_t lm_start;
  bool lm_over_words;  // the model is over words of the lexicon, not tokens
  double lm_weight;
  Lexicon lexicon;
  double word_score;  // for each word of the lexicon
  Automaton hotwords;
  const int32_t* hotwords_start;  // (N)
  double hotword_weight;
  double token_score;  // for each token
  double largest;      // upper bound of the score of a step

  CRNN_INLINE State start(int64_t n) const {
    return {lm_start, lexicon.root == nullptr ? Lexicon::kNoLexicon : lexicon.root[n],
            hotwords_start == nullptr ? -1 : hotwords_start[n], 0};
  }

  // The score of one more token; -inf if it is forbidden.
  CRNN_INLINE double step(State* state, int32_t token, int64_t n) const {
    double score = token_score;
    if (state->lexicon != Lexicon::kNoLexicon)
      score += score_words(state, lexicon.step(state->lexicon, token, n), n);
    if (state->lm >= 0 && !lm_over_words) score += lm_weight * lm.step(&state->lm, token);
    if (state->hotwords >= 0) score += hotword_weight * hotwords.step(&state->hotwords, token);
    return score;
  }

  // The score of the end of the text.
  CRNN_INLINE double end(State state, int64_t n) const {
    double score = 0;
    if (state.lexicon != Lexicon::kNoLexicon) score += score_words(&state, lexicon.end(state.lexicon, n), n);
    if (state.lm >= 0) score += lm_weight * double(lm.final_weight[state.lm]);
    if (state.hotwords >= 0) score += hotword_weight * double(hotwords.final_weight[state.hotwords]);
    return score;
  }

  CRNN_INLINE double largest_step() const { return largest; }

 private:
  // Applies a step of the lexicon to the state and scores it.
  CRNN_INLINE double score_words(State* state, const Lexicon::Step& step, int64_t n) const {
    double score = 0;
    state->lexicon = step.state;
    if (step.found_unknown) score += lexicon.unknown_score[n];
    if (step.completed_word != Lexicon::kNoWord) {
      if (step.completed_word < lexicon.words) score += word_score;
      if (state->lm >= 0 && lm_over_words) score += lm_weight * lm.step(&state->lm, step.completed_word);
    }
    return score;
  }
};

}  // namespace crnn::beam_search
