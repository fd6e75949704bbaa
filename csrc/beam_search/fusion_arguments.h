// Language model, lexicon and hot words as arguments of the operator: lists of tensors, empty if unused.
// crnn_ext/text guarantees valid values; shapes, dtypes and devices are checked here.
#pragma once

#include <vector>

#include "beam_search/beam_search.h"

namespace crnn::beam_search {

using Tensors = std::vector<Tensor>;

class Tables {
 public:
  Tables(const Tensor& logits, const char* name, const Tensors& tensors, size_t count)
      : logits_(logits), name_(name), tensors_(tensors) {
    check(tensors.size() == count, kOp, name, " must have ", count, " tensors, got ", tensors.size());
  }

  template <class Element>
  const Element* column(size_t index, int64_t elements) const {
    constexpr ScalarType kType = std::is_same_v<Element, int32_t> ? ScalarType::Int
                                 : std::is_same_v<Element, float> ? ScalarType::Float
                                                                  : ScalarType::Double;
    const Tensor& tensor = tensors_[index];
    check(tensor.scalar_type() == kType && tensor.dim() == 1 && tensor.numel() == elements &&
              tensor.is_contiguous() && tensor.device() == logits_.device(),
          kOp, name_, "[", index, "] must be a contiguous vector of ", elements,
          " elements with its documented dtype on the device of logits");
    return static_cast<const Element*>(tensor.const_data_ptr());
  }

  int64_t elements(size_t index) const { return tensors_[index].numel(); }

  // The edges, from the first three tensors.
  Edges edges(int64_t symbols) const {
    const int64_t edges = elements(1);
    return {column<int32_t>(0, states() + 1), column<int32_t>(1, edges), column<int32_t>(2, edges),
            int32_t(symbols)};
  }

  int64_t states() const { return elements(0) - 1; }

 private:
  const Tensor& logits_;
  const char* name_;
  const Tensors& tensors_;
};

// The operator's arguments for fusion.
struct FusionArguments {
  Tensors lm;  // first edges, symbols, targets, edge weights, fail states, fail weights, final weights
  int64_t lm_start;
  bool lm_over_words;
  double lm_weight;
  Tensors lexicon;  // first edges, symbols, targets, words of states, roots (N), unknown scores (N)
  int64_t words;
  double word_score;
  Tensors hotwords;  // as for lm, then start states (N)
  double hotword_weight;
  double token_score;
  double largest_step;

  bool enabled() const { return !lm.empty() || !lexicon.empty() || !hotwords.empty() || token_score != 0; }

  Fusion fusion(const Tensor& logits) const {
    const int64_t samples = logits.size(1), classes = logits.size(2);
    Fusion fusion{};
    fusion.lm_start = -1;
    if (!lm.empty()) {
      fusion.lm = automaton(Tables(logits, "lm", lm, 7), lm_over_words ? words + 1 : classes);
      fusion.lm_start = int32_t(lm_start);
    }
    if (!lexicon.empty()) {
      const Tables tables(logits, "lexicon", lexicon, 6);
      fusion.lexicon = {tables.edges(classes), tables.column<int32_t>(3, tables.states()),
                        tables.column<int32_t>(4, samples), tables.column<double>(5, samples),
                        int32_t(words)};
    }
    if (!hotwords.empty()) {
      const Tables tables(logits, "hotwords", hotwords, 8);
      fusion.hotwords = automaton(tables, classes);
      fusion.hotwords_start = tables.column<int32_t>(7, samples);
    }
    fusion.lm_over_words = lm_over_words;
    fusion.lm_weight = lm_weight;
    fusion.word_score = word_score;
    fusion.hotword_weight = hotword_weight;
    fusion.token_score = token_score;
    fusion.largest = largest_step;
    return fusion;
  }

 private:
  static Automaton automaton(const Tables& tables, int64_t symbols) {
    const int64_t states = tables.states();
    return {tables.edges(symbols), tables.column<float>(3, tables.elements(1)),
            tables.column<int32_t>(4, states), tables.column<float>(5, states),
            tables.column<float>(6, states)};
  }
};

}  // namespace crnn::beam_search
