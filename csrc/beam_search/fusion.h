// What language model, lexicon and hot words add to the probability of a prefix, for host and device.
//
// Each is an automaton that reads the prefix token by token, so that what they add depends on the prefix
// alone. Scores are in nats.
#pragma once

#include "beam_search/lexicon.h"

namespace crnn::beam_search {

// The search without any of them: a prefix's score is its probability.
struct NoFusion {
  static constexpr bool kHasFusion = false;
  struct State {
    double none;  // see BeamEntry
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
    int32_t none;  // see BeamEntry
  };

  // What is not used has null pointers, and the state -1 (the lexicon: kNoLexicon).
  Automaton lm;
  int32_t lm_start;
  bool lm_over_words;  // it reads the words of the lexicon, not tokens
  double lm_weight;
  Lexicon lexicon;
  double word_score;  // for each word of the lexicon
  Automaton hotwords;
  const int32_t* hotwords_start;  // (N)
  double hotword_weight;
  double token_score;  // for each token
  double largest;      // no step adds more

  CRNN_INLINE State start(int64_t n) const {
    return {lm_start, lexicon.root == nullptr ? Lexicon::kNoLexicon : lexicon.root[n],
            hotwords_start == nullptr ? -1 : hotwords_start[n], 0};
  }

  // What one more token adds; -inf if it may not follow.
  CRNN_INLINE double step(State* state, int32_t token, int64_t n) const {
    double added = token_score;
    if (state->lexicon != Lexicon::kNoLexicon)
      added += read(state, lexicon.step(state->lexicon, token, n), n);
    if (state->lm >= 0 && !lm_over_words) added += lm_weight * lm.step(&state->lm, token);
    if (state->hotwords >= 0) added += hotword_weight * hotwords.step(&state->hotwords, token);
    return added;
  }

  // What the end of the text adds.
  CRNN_INLINE double end(State state, int64_t n) const {
    double added = 0;
    if (state.lexicon != Lexicon::kNoLexicon) added += read(&state, lexicon.end(state.lexicon, n), n);
    if (state.lm >= 0) added += lm_weight * double(lm.final_weight[state.lm]);
    if (state.hotwords >= 0) added += hotword_weight * double(hotwords.final_weight[state.hotwords]);
    return added;
  }

  CRNN_INLINE double largest_step() const { return largest; }

 private:
  CRNN_INLINE double read(State* state, const Lexicon::Step& step, int64_t n) const {
    double added = 0;
    state->lexicon = step.state;
    if (step.counts_as_unknown) added += lexicon.unknown_score[n];
    if (step.ended_word != Lexicon::kNoWord) {
      if (step.ended_word < lexicon.words) added += word_score;
      if (state->lm >= 0 && lm_over_words) added += lm_weight * lm.step(&state->lm, step.ended_word);
    }
    return added;
  }
};

}  // namespace crnn::beam_search
