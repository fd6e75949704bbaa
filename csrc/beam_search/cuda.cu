// The beam_search operator on a GPU.
#include "beam_search/fusion_arguments.h"
#include "beam_search/kernels.cuh"
#include "common/cuda_stream.h"

namespace crnn::beam_search {
namespace {

template <class Storage, class Fusion>
void decode(const Tensor& logits, const Tensor& input_lengths, const Shape& shape, const Options& options,
            const Fusion& fusion, const Result& result, gpu::Stream stream) {
  using Real = typename ComputeType<Storage>::Real;
  using State = typename Fusion::State;
  const int64_t samples = shape.samples, rows = samples * shape.frames, beam = options.beam_size;
  const int64_t shortlist_size = choose_shortlist_size<Fusion>(options, shape.classes);
  const Tensor row_max = scratch<Real>(logits, rows), inverse_sum = scratch<Real>(logits, rows);
  const Tensor tokens = scratch<Token<Real>>(logits, rows * shortlist_size);
  const Tensor entries = scratch<BeamEntry<State>>(logits, 2 * samples * beam);
  const Tensor probabilities = scratch<PrefixProbability<Real>>(logits, 2 * samples * beam);
  const Tensor updated = scratch<PrefixProbability<Real>>(logits, samples * beam);
  const Tensor nodes = scratch<Node>(logits, rows * beam);
  const Tensor collected = scratch<int32_t>(logits, shortlist_size == 0 ? samples * shape.classes : 0);
  const FrameShortlists<Real> frames{data<Real>(row_max), data<Real>(inverse_sum), data<Token<Real>>(tokens),
                                     int(shortlist_size)};
  const Scratch<Real, State> memory{
      data<BeamEntry<State>>(entries), data<PrefixProbability<Real>>(probabilities),
      data<PrefixProbability<Real>>(updated), data<Node>(nodes), data<int32_t>(collected)};
  const Hypotheses<Real> hypotheses{data<int64_t>(result.tokens), data<int64_t>(result.lengths),
                                    data<Real>(result.scores), data<Real>(result.log_probs)};
  const SearchParams<Storage, Real, Fusion> params{TncView<const Storage>(logits.const_data_ptr(), logits),
                                                   IndexView(input_lengths),
                                                   shape.frames,
                                                   shape.classes,
                                                   options,
                                                   fusion,
                                                   frames,
                                                   memory,
                                                   hypotheses};
  launch_beam_search(params, samples, stream);
}

auto beam_search_cuda(const Tensor& logits, const Tensor& input_lengths, int64_t blank, bool normalize,
                      int64_t beam_size, int64_t nbest, int64_t token_top_k, double token_min_logp,
                      double beam_threshold, Tensors lm, int64_t lm_start, bool lm_over_words,
                      double lm_weight, Tensors lexicon, int64_t words, double word_score, Tensors hotwords,
                      double hotword_weight, double token_score, double largest_step) {
  const Options options{beam_size, nbest, blank, normalize, token_top_k, token_min_logp, beam_threshold};
  const Shape shape = check_tensors(logits, input_lengths, options);
  const FusionArguments arguments{lm,         lm_start, lm_over_words,  lm_weight,   lexicon,     words,
                                  word_score, hotwords, hotword_weight, token_score, largest_step};
  const DeviceScope device(logits, kOp);
  const Result result(logits, shape, nbest);
  dispatch_floating(logits.scalar_type(), kOp, [&](auto storage) {
    using Storage = decltype(storage);
    if (arguments.enabled()) {
      decode<Storage>(logits, input_lengths, shape, options, arguments.fusion(logits), result,
                      device.stream());
    } else {
      decode<Storage>(logits, input_lengths, shape, options, NoFusion{}, result, device.stream());
    }
  });
  return result.tuple();
}

}  // namespace
}  // namespace crnn::beam_search

STABLE_TORCH_LIBRARY_IMPL(crnn_ext, CRNN_DISPATCH_KEY, m) {
  m.impl("beam_search", TORCH_BOX(&crnn::beam_search::beam_search_cuda));
}
