// The schema of beam_search. It returns the tensors of Result (beam_search.h); fusion_arguments.h documents
// lm, lexicon and hotwords.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(crnn_ext, m) {
  m.def(
      "beam_search(Tensor logits, Tensor input_lengths, int blank, bool normalize, int beam_size, int nbest, "
      "int token_top_k, float token_min_logp, float beam_threshold, Tensor[] lm, int lm_start, "
      "bool lm_over_words, float lm_weight, Tensor[] lexicon, int words, float word_score, "
      "Tensor[] hotwords, float hotword_weight, float token_score, float largest_step) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}
