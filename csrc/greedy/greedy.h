// Argument checks and results of greedy_decode, shared by its backends.
#pragma once

#include <tuple>

#include "common/arguments.h"
#include "greedy/collapse.h"

namespace crnn::greedy {

constexpr const char* kOp = "greedy_decode";

struct Shape {
  int64_t frames;   // T
  int64_t samples;  // N
  int32_t classes;  // C
};

// Checks shapes, dtypes and devices. The values of input_lengths are not read: they may live on a GPU. In a
// header, because each backend is a separate library.
inline Shape check_tensors(const Tensor& logits, const Tensor& input_lengths, int64_t blank) {
  check_logits(logits, blank, kOp);
  check_lengths(input_lengths, logits, kOp, "input_lengths");
  return {logits.size(0), logits.size(1), int32_t(logits.size(2))};
}

struct Result {
  Tensor tokens;      // (N, T)
  Tensor lengths;     // (N,)
  Tensor scores;      // (N,)
  Tensor starts;      // (N, T)
  Tensor ends;        // (N, T)
  Tensor token_logp;  // (N, T)

  Result(const Tensor& logits, const Shape& shape)
      : tokens(new_tensor(logits, {shape.samples, shape.frames}, ScalarType::Long)),
        lengths(new_tensor(logits, {shape.samples}, ScalarType::Long)),
        scores(new_tensor(logits, {shape.samples}, compute_type(logits.scalar_type()))),
        starts(new_tensor(logits, {shape.samples, shape.frames}, ScalarType::Long)),
        ends(new_tensor(logits, {shape.samples, shape.frames}, ScalarType::Long)),
        token_logp(new_tensor(logits, {shape.samples, shape.frames}, compute_type(logits.scalar_type()))) {}

  template <class Real>
  DecodedView<Real> view() const {
    return {data<int64_t>(tokens), data<int64_t>(lengths), data<Real>(scores), data<int64_t>(starts),
            data<int64_t>(ends),   data<Real>(token_logp), tokens.size(1)};
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> tuple() const {
    return {tokens, lengths, scores, starts, ends, token_logp};
  }
};

}  // namespace crnn::greedy
