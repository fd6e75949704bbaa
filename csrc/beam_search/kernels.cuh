// Beam search on a GPU, in two kernels: token selection for all frames, then the search of each sample.
#pragma once

#include "beam_search/search.cuh"

namespace crnn::beam_search {

// Number of tokens per frame in the shortlist that the search is limited to. 0: no shortlist; the search
// needs all tokens, because with fusion a token's score depends on the prefix.
template <class Fusion>
int64_t choose_shortlist_size(const Options& options, int64_t classes) {
  const int64_t needed =
      Fusion::kHasFusion ? options.token_top_k : minimum(options.token_top_k, options.beam_size + 1);
  if (Fusion::kHasFusion && needed >= classes - 1) return 0;
  return maximum<int64_t>(1, minimum(needed, classes - 1));
}

template <class Storage, class Real, class Fusion>
void launch_beam_search(const SearchParams<Storage, Real, Fusion>& params, int64_t samples,
                        gpu::Stream stream) {
  const Options& options = params.options;
  const int shortlist_size = params.rows.shortlist_size;
  const size_t token_bytes =
      shortlist_size == 0
          ? 0
          : BlockTopK<Token<Real>>::capacity(shortlist_size, kRowBlockSize) * sizeof(Token<Real>);
  gpu::launch(select_tokens_kernel<Storage, Real>, params.frames * samples, kRowBlockSize, token_bytes,
              stream, params.logits, params.length_of, params.frames, samples, params.classes,
              int(options.blank), options.normalize, Real(max_log_prob(params.frames)), params.rows);
  gpu::launch(search_kernel<Storage, Real, Fusion>, samples, search_threads(options.beam_size),
              SharedMemory::bytes(options.beam_size), stream, params);
}

}  // namespace crnn::beam_search
