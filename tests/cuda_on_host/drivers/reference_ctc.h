// The CTC recursions in the log domain, as defined. Shares no code with csrc.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace reference {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Log-probabilities: (frames, states) or (frames, classes).
using Table = std::vector<std::vector<double>>;

inline double log_sum(double a, double b) {
  const double most = std::max(a, b);
  return most == -kInfinity ? most : most + std::log1p(std::exp(std::min(a, b) - most));
}

struct Solution {
  double loss;
  Table posterior;  // (T_n, C); empty if the loss is infinite
};

inline Solution forward_backward(const Table& log_probs, int64_t classes, const std::vector<int64_t>& labels,
                                 int64_t blank) {
  const int frames = int(log_probs.size()), states = 2 * int(labels.size()) + 1;
  if (frames == 0) return {labels.empty() ? 0 : kInfinity, {}};
  std::vector<int64_t> state(states, blank);
  for (size_t i = 0; i < labels.size(); ++i) state[2 * i + 1] = labels[i];
  const auto may_skip_to = [&](int i) { return i >= 2 && state[i] != blank && state[i] != state[i - 2]; };
  // Alpha includes the emission of its own frame, beta does not.
  Table alpha(frames, std::vector<double>(states, -kInfinity)), beta = alpha;
  for (int t = 0; t < frames; ++t) {
    for (int i = 0; i < states; ++i) {
      double sum = -kInfinity;
      if (t == 0) {
        if (i < 2) sum = 0;
      } else {
        sum = alpha[t - 1][i];
        if (i >= 1) sum = log_sum(sum, alpha[t - 1][i - 1]);
        if (may_skip_to(i)) sum = log_sum(sum, alpha[t - 1][i - 2]);
      }
      alpha[t][i] = sum + log_probs[t][state[i]];
    }
  }
  for (int t = frames - 1; t >= 0; --t) {
    for (int i = 0; i < states; ++i) {
      if (t == frames - 1) {
        if (i >= states - 2) beta[t][i] = 0;
        continue;
      }
      const auto through = [&](int next) { return beta[t + 1][next] + log_probs[t + 1][state[next]]; };
      double sum = through(i);
      if (i + 1 < states) sum = log_sum(sum, through(i + 1));
      if (i + 2 < states && may_skip_to(i + 2)) sum = log_sum(sum, through(i + 2));
      beta[t][i] = sum;
    }
  }
  double total = -kInfinity;
  for (int i = 0; i < states; ++i) total = log_sum(total, alpha[0][i] + beta[0][i]);
  if (total == -kInfinity) return {kInfinity, {}};
  Table posterior(frames, std::vector<double>(classes));
  for (int t = 0; t < frames; ++t)
    for (int i = 0; i < states; ++i) posterior[t][state[i]] += std::exp(alpha[t][i] + beta[t][i] - total);
  return {-total, posterior};
}

// The forward recursion alone.
inline double log_probability(const Table& log_probs, const std::vector<int64_t>& labels, int64_t blank) {
  const int states = 2 * int(labels.size()) + 1;
  std::vector<int64_t> token(states, blank);
  for (size_t i = 0; i < labels.size(); ++i) token[2 * i + 1] = labels[i];
  std::vector<double> alpha(states, -kInfinity);
  alpha[0] = 0;
  for (const std::vector<double>& row : log_probs) {
    for (int s = states - 1; s >= 0; --s) {
      if (s >= 1) alpha[s] = log_sum(alpha[s], alpha[s - 1]);
      if (s >= 3 && s % 2 == 1 && token[s] != token[s - 2]) alpha[s] = log_sum(alpha[s], alpha[s - 2]);
      alpha[s] += row[token[s]];
    }
  }
  return states == 1 ? alpha[0] : log_sum(alpha[states - 1], alpha[states - 2]);
}

// The state of the best path at each frame; empty without a path or without frames.
inline std::vector<int> best_path(const Table& rows, const std::vector<int64_t>& labels, int64_t blank) {
  const int frames = int(rows.size()), states = 2 * int(labels.size()) + 1;
  std::vector<int64_t> token(states, blank);
  for (size_t i = 0; i < labels.size(); ++i) token[2 * i + 1] = labels[i];
  std::vector<double> best(states, -kInfinity);
  best[0] = 0;
  std::vector<std::vector<int>> moves(frames, std::vector<int>(states));
  for (int t = 0; t < frames; ++t) {
    const std::vector<double> before = best;
    for (int s = 0; s < states; ++s) {
      const bool may_skip = s >= 3 && s % 2 == 1 && token[s] != token[s - 2];
      for (int move = 1; move <= std::min(s, may_skip ? 2 : 1); ++move)
        if (before[s - move] > before[s - moves[t][s]]) moves[t][s] = move;
      best[s] = before[s - moves[t][s]] + rows[t][token[s]];
    }
  }
  int state = states > 1 && best[states - 2] > best[states - 1] ? states - 2 : states - 1;
  if (best[state] == -kInfinity) return {};
  std::vector<int> path(frames);
  for (int t = frames - 1; t >= 0; --t) {
    path[t] = state;
    state -= moves[t][state];
  }
  return path;
}

}  // namespace reference
