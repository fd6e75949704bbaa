// The tokens of a frame by which prefixes may be extended, on the host.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "beam_search/token.h"
#include "common/isa.h"
#include "common/rows.h"

namespace crnn::beam_search {

// Logits above a bound, none in most parts of a long row.
template <class Real>
struct TokensAbove {
  static constexpr int kPart = 64;

  // part: (count <= kPart); found: room for `count` more. Returns how many there are.
  template <int kBytes>
  static CRNN_INLINE void run(const Real* part, int64_t first_class, int64_t count, Real bound, int32_t blank,
                              Token<Real>* found, int64_t* number) {
    int64_t many = 0;
    if (count < kPart || peak_of_short_row<kBytes>(part, count) > bound) {
      for (int64_t i = 0; i < count; ++i) {
        found[many] = {part[i], int32_t(first_class + i)};
        many += (part[i] > bound) & (first_class + i != blank);
      }
    }
    *number = many;
  }
};

// The best `most` tokens of a row with logits above `bound`, best first; neither the blank nor any with -inf
// or NaN.
template <class Real>
void select_tokens(const Real* row, int64_t classes, Real bound, int64_t most, int32_t blank,
                   std::vector<Token<Real>>* tokens) {
  constexpr int64_t kPart = TokensAbove<Real>::kPart;
  const int64_t room = std::min(classes, 2 * most) + kPart;
  tokens->resize(room);
  int64_t held = 0;
  const auto keep_best = [&] {
    std::nth_element(tokens->begin(), tokens->begin() + (most - 1), tokens->begin() + held);
    held = most;
    bound = (*tokens)[most - 1].logit;  // later classes need more than that
  };
  for (int64_t first = 0; first < classes; first += kPart) {
    int64_t number = 0;
    run_vectorised<TokensAbove<Real>>(row + first, first, std::min(kPart, classes - first), bound, blank,
                                      tokens->data() + held, &number);
    held += number;
    if (held + kPart > room && held > most) keep_best();
  }
  if (held > most) keep_best();
  tokens->resize(held);
  std::sort(tokens->begin(), tokens->end());
}

}  // namespace crnn::beam_search
