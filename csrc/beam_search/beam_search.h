// What the backends of beam_search share on torch's side: its arguments, checked once, and its results.
#pragma once

#include <tuple>
#include <vector>

#include "beam_search/fusion.h"
#include "beam_search/options.h"
#include "common/arguments.h"

namespace crnn::beam_search {

constexpr const char* kOp = "beam_search";
constexpr int64_t kMaxBeamSize = 1024;
constexpr int64_t kMaxTopK = 1024;

struct Shape {
  int64_t frames;   // T
  int64_t samples;  // N
  int32_t classes;  // C
};

// Shapes, dtypes, devices and options; not the values of input_lengths, which may live on a GPU. In the
// header, because each backend is a library of its own.
inline Shape check_tensors(const Tensor& logits, const Tensor& input_lengths, const Options& options) {
  check_logits(logits, options.blank, kOp);
  check_lengths(input_lengths, logits, kOp, "input_lengths");
  check(options.beam_size >= 1 && options.beam_size <= kMaxBeamSize, kOp, "beam_size must be in [1, ",
        kMaxBeamSize, "], and it is ", options.beam_size);
  check(options.nbest >= 1 && options.nbest <= options.beam_size, kOp,
        "nbest must be in [1, beam_size=", options.beam_size, "], and it is ", options.nbest);
  check(options.token_top_k >= 1, kOp, "token_top_k must be at least 1, and it is ", options.token_top_k);
  check(options.token_top_k <= kMaxTopK || options.token_top_k >= logits.size(2) - 1, kOp,
        "token_top_k must be at most ", kMaxTopK, " or take all of the C=", logits.size(2),
        " classes, and it is ", options.token_top_k);
  const int64_t most_frames = INT32_MAX / options.beam_size;
  check(logits.size(0) < most_frames, kOp, "a beam of ", options.beam_size, " can read fewer than ",
        most_frames, " frames, and logits has T=", logits.size(0));
  return {logits.size(0), logits.size(1), int32_t(logits.size(2))};
}

// A hypothesis that is missing has length -1 and scores of -inf; -1 stands behind the tokens of all.
struct Result {
  Tensor tokens;     // (N, nbest, T)
  Tensor lengths;    // (N, nbest)
  Tensor scores;     // (N, nbest)
  Tensor log_probs;  // (N, nbest)

  Result(const Tensor& logits, const Shape& shape, int64_t nbest)
      : tokens(new_tensor(logits, {shape.samples, nbest, shape.frames}, ScalarType::Long)),
        lengths(new_tensor(logits, {shape.samples, nbest}, ScalarType::Long)),
        scores(new_tensor(logits, {shape.samples, nbest}, compute_type(logits.scalar_type()))),
        log_probs(new_tensor(logits, {shape.samples, nbest}, compute_type(logits.scalar_type()))) {}

  std::tuple<Tensor, Tensor, Tensor, Tensor> tuple() const { return {tokens, lengths, scores, log_probs}; }
};

}  // namespace crnn::beam_search
