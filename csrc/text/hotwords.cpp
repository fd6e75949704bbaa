// Hot words as an Aho-Corasick automaton. It adds a word's bonus token by token while the word is being
// matched, and subtracts it again if the match fails.
//
// The pattern of a word is separator, word, separator, so only whole words match; without separators, words
// match anywhere. A state is the longest suffix of the text so far that is a prefix of a pattern. Its
// potential is its number of tokens. A step adds the difference of the potentials plus the bonuses of all
// words that it completes. Over a text this telescopes to the bonuses of its words plus the potential of the
// last state, which the final weight subtracts.
#include "text/hotwords.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "text/spellings.h"
#include "text/tables.h"
#include "text/trie.h"

namespace py = pybind11;

namespace crnn::text {
namespace {

// Stands for any separator in the trie.
constexpr int32_t kSeparator = -1;

// words, lengths: see for_each_spelling; separators: classes.
Automaton hotword_automaton(const IntArray& words, const IntArray& lengths,
                            const std::vector<int32_t>& separators) {
  const bool whole_words = !separators.empty();
  Trie trie;
  std::vector<float> tokens{0};  // (nodes): number of tokens, without separators
  std::vector<float> bonus{0};   // (nodes): of the words that end there
  const auto extend = [&](int32_t node, int32_t symbol) {
    const int32_t child = trie.extend(node, symbol);
    if (child == int32_t(tokens.size())) {
      tokens.push_back(tokens[node] + (symbol != kSeparator));
      bonus.push_back(0);
    }
    return child;
  };
  for_each_spelling(words, lengths, [&](const int64_t* begin, const int64_t* end) {
    int32_t node = Trie::kRoot;
    if (whole_words) node = extend(node, kSeparator);
    for (const int64_t* token = begin; token < end; ++token) {
      const bool is_separator = std::find(separators.begin(), separators.end(), *token) != separators.end();
      node = extend(node, is_separator ? kSeparator : int32_t(*token));
    }
    if (whole_words) node = extend(node, kSeparator);
    bonus[node] = tokens[node];
  });

  // A node is a state if a pattern continues there; complete patterns that no longer one extends need no
  // state.
  const std::vector<int32_t> nodes = trie.by_depth();
  const std::vector<int32_t> suffix = trie.suffixes(nodes);
  std::vector<char> has_child(nodes.size(), false);
  has_child[Trie::kRoot] = true;
  for (const int32_t node : nodes) {
    if (node != Trie::kRoot) has_child[trie.parent(node)] = true;
  }
  std::vector<int32_t> state_of(nodes.size());
  std::vector<int32_t> node_of;
  for (const int32_t node : nodes) {
    bonus[node] += bonus[suffix[node]];
    if (has_child[node]) {
      state_of[node] = int32_t(node_of.size());
      node_of.push_back(node);
    } else {
      state_of[node] = state_of[suffix[node]];
    }
  }
  const auto potential = [&](int32_t node) { return tokens[node_of[state_of[node]]]; };

  std::vector<Edge> edges;
  for (const int32_t node : nodes) {
    if (node == Trie::kRoot) continue;
    const int32_t parent = trie.parent(node);
    Edge edge{state_of[parent], trie.symbol(node), state_of[node],
              bonus[node] + potential(node) - potential(parent)};
    if (edge.symbol != kSeparator) {
      edges.push_back(edge);
    } else {
      for (const int32_t separator : separators) {
        edge.symbol = separator;
        edges.push_back(edge);
      }
    }
  }
  Automaton result{Edges(edges, int32_t(node_of.size())), {}, {}, {}, 0};
  for (const int32_t node : node_of) {
    result.fail_state.push_back(state_of[suffix[node]]);
    result.fail_weight.push_back(potential(suffix[node]) - tokens[node]);
    // The end of the text completes words, like a separator.
    int32_t ending = node;
    int32_t completed = trie.find(ending, kSeparator);
    while (completed == Trie::kNone && ending != Trie::kRoot) {
      ending = suffix[ending];
      completed = trie.find(ending, kSeparator);
    }
    result.final_weight.push_back((completed == Trie::kNone ? 0 : bonus[completed]) - tokens[node]);
  }
  // The start of a text acts as a separator.
  const int32_t after_separator = trie.find(Trie::kRoot, kSeparator);
  if (after_separator != Trie::kNone) result.start = state_of[after_separator];
  return result;
}

}  // namespace

void bind_hotwords(py::module_& module) {
  module.def(
      "hotword_automaton",
      [](const IntArray& words, const IntArray& lengths, const std::vector<int32_t>& separators) {
        return hotword_automaton(words, lengths, separators).to_python();
      },
      py::arg("words"), py::arg("lengths"), py::arg("separators"));
}

}  // namespace crnn::text
