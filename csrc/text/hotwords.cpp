// Hot words as an automaton of Aho and Corasick that adds a word's bonus token by token while it is being
// spelt, and takes it back where the spelling breaks off.
//
// A word is matched as separator, word, separator, so that it is found as a whole word only; without
// separators anywhere. A state is the longest end of the text so far that some of these patterns begin with.
// Its potential is the number of tokens in it. A step adds the difference of the potentials and the bonuses
// of all words that it completes, so that their sum over a text telescopes: to the bonuses of its words and
// the potential of its last state, which the final weight takes back.
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

// Any separator, in the trie.
constexpr int32_t kSeparator = -1;

// words, lengths: see for_each_spelling; separators: classes.
Automaton hotword_automaton(const IntArray& words, const IntArray& lengths,
                            const std::vector<int32_t>& separators) {
  const bool whole_words = !separators.empty();
  Trie trie;
  std::vector<float> spelt{0};  // (nodes): the tokens in each, without separators
  std::vector<float> bonus{0};  // (nodes): for the words that end there
  const auto extend = [&](int32_t node, int32_t symbol) {
    const int32_t child = trie.extend(node, symbol);
    if (child == int32_t(spelt.size())) {
      spelt.push_back(spelt[node] + (symbol != kSeparator));
      bonus.push_back(0);
    }
    return child;
  };
  for_each_spelling(words, lengths, [&](const int64_t* begin, const int64_t* end) {
    int32_t node = Trie::kRoot;
    if (whole_words) node = extend(node, kSeparator);
    for (const int64_t* token = begin; token < end; ++token) {
      const bool separates = std::find(separators.begin(), separators.end(), *token) != separators.end();
      node = extend(node, separates ? kSeparator : int32_t(*token));
    }
    if (whole_words) node = extend(node, kSeparator);
    bonus[node] = spelt[node];
  });

  // A word that no longer one begins with is done with once it is complete: its node is no state.
  const std::vector<int32_t> nodes = trie.by_depth();
  const std::vector<int32_t> suffix = trie.suffixes(nodes);
  std::vector<char> goes_on(nodes.size(), false);
  goes_on[Trie::kRoot] = true;
  for (const int32_t node : nodes) {
    if (node != Trie::kRoot) goes_on[trie.parent(node)] = true;
  }
  std::vector<int32_t> state_of(nodes.size());
  std::vector<int32_t> node_of;
  for (const int32_t node : nodes) {
    bonus[node] += bonus[suffix[node]];
    if (goes_on[node]) {
      state_of[node] = int32_t(node_of.size());
      node_of.push_back(node);
    } else {
      state_of[node] = state_of[suffix[node]];
    }
  }
  const auto potential = [&](int32_t node) { return spelt[node_of[state_of[node]]]; };

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
    result.fail_weight.push_back(potential(suffix[node]) - spelt[node]);
    // The end of the text completes words as a separator does.
    int32_t ending = node;
    int32_t completed = trie.find(ending, kSeparator);
    while (completed == Trie::kNone && ending != Trie::kRoot) {
      ending = suffix[ending];
      completed = trie.find(ending, kSeparator);
    }
    result.final_weight.push_back((completed == Trie::kNone ? 0 : bonus[completed]) - spelt[node]);
  }
  // A text begins as after a separator.
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
