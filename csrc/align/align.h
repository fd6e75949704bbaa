// The results of align, shared by its backends.
#pragma once

#include <tuple>

#include "align/path.h"
#include "targets/batch.h"

namespace crnn::align {

constexpr const char* kOp = "align";

// M = N * K texts. S is the number of columns; for concatenated targets, the maximum number of labels of a
// text.
struct Result {
  Tensor tokens;      // (M, T)
  Tensor scores;      // (M,)
  Tensor starts;      // (M, S)
  Tensor ends;        // (M, S)
  Tensor peaks;       // (M, S)
  Tensor token_logp;  // (M, S)

  Result(const Tensor& logits, const BatchShape& shape)
      : tokens(new_tensor(logits, {shape.texts(), shape.frames}, ScalarType::Long)),
        scores(new_tensor(logits, {shape.texts()}, compute_type(logits.scalar_type()))),
        starts(new_tensor(logits, {shape.texts(), columns(shape)}, ScalarType::Long)),
        ends(new_tensor(logits, {shape.texts(), columns(shape)}, ScalarType::Long)),
        peaks(new_tensor(logits, {shape.texts(), columns(shape)}, ScalarType::Long)),
        token_logp(new_tensor(logits, {shape.texts(), columns(shape)}, compute_type(logits.scalar_type()))) {}

  template <class Real>
  AlignmentView<Real> view() const {
    return {data<int64_t>(tokens), data<Real>(scores),     data<int64_t>(starts), data<int64_t>(ends),
            data<int64_t>(peaks),  data<Real>(token_logp), tokens.size(1),        starts.size(1)};
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> tuple() const {
    return {tokens, scores, starts, ends, peaks, token_logp};
  }

 private:
  static int64_t columns(const BatchShape& shape) {
    return shape.padded ? shape.padded_length : minimum(shape.labels, shape.frames);
  }
};

}  // namespace crnn::align
