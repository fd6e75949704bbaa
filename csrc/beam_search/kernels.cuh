// Beam search on a GPU, in two kernels: the tokens of every frame, then the search of each sample.
#pragma once

#include "beam_search/search.cuh"

namespace crnn::beam_search {

// How many tokens of a frame are listed, so that the search need not look at others; 0 where it has to look
// at all of them, because what they add to a score is not the same for all prefixes.
template <class Fusion>
int64_t listed_tokens(const Options& options, int64_t classes) {
  const int64_t needed = Fusion::kAdds ? options.most_tokens : smaller(options.most_tokens, options.beam + 1);
  if (Fusion::kAdds && needed >= classes - 1) return 0;
  return larger<int64_t>(1, smaller(needed, classes - 1));
}

template <class Storage, class Real, class Fusion>
void launch_beam_search(const Problem<Storage, Real, Fusion>& problem, int64_t samples, gpu::Stream stream) {
  const Options& options = problem.options;
  const int listed = problem.rows.listed;
  const size_t token_bytes =
      listed == 0 ? 0 : BestItems<Token<Real>>::capacity(listed, kRowBlock) * sizeof(Token<Real>);
  gpu::launch(tokens_kernel<Storage, Real>, problem.frames * samples, kRowBlock, token_bytes, stream,
              problem.logits, problem.length_of, problem.frames, samples, problem.classes, int(options.blank),
              options.normalize, Real(largest_log_prob(problem.frames)), problem.rows);
  gpu::launch(search_kernel<Storage, Real, Fusion>, samples, search_threads(options.beam),
              Shared::bytes(options.beam), stream, problem);
}

}  // namespace crnn::beam_search
