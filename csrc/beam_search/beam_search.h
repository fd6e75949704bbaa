// Arguments and results of beam_search, shared by the backends.
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

// Checks shapes, dtypes, devices and options, but not the values of input_lengths, which may be on a GPU.
// Inline, because each backend is a separate library.
inline Shape check_tensors(const Tensor& logits, const Tensor& input_lengths, const Options& options) {
  check_logits(logits, options.blank, kOp);
  check_lengths(input_lengths, logits, kOp, "input_lengths");
  check(options.beam_size >= 1 && options.beam_size <= kMaxBeamSize, kOp, "beam_size must be in [1, ",
        kMaxBeamSize, "], got ", options.beam_size);
  check(options.nbest >= 1 && options.nbest <= options.beam_size, kOp, "nbest must be in [1, ",
        options.beam_size, "], got ", options.nbest);
  check(options.token_top_k >= 1, kOp, "token_top_k must be at least 1, got ", options.token_top_k);
  check(options.token_top_k <= kMaxTopK || options.token_top_k >= logits.size(2) - 1, kOp,
        "token_top_k must be at most ", kMaxTopK, ", or at least ", logits.size(2) - 1, " (all tokens), got ",
        options.token_top_k);
  const int64_t max_frames = INT32_MAX / options.beam_size;
  check(logits.size(0) < max_frames, kOp, "logits must have fewer than ", max_frames,
        " frames for beam_size ", options.beam_size, ", got ", logits.size(0));
  return {logits.size(0), logits.size(1), int32_t(logits.size(2))};
}

// A missing hypothesis has length -1 and scores of -inf. Tokens are padded with -1.
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
