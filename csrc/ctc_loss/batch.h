// The targets and lengths of a batch as the CPU reads them.
#pragma once

#include <vector>

#include "ctc_loss/ctc_loss.h"

namespace crnn::ctc_loss {

struct Batch {
  std::vector<int32_t> labels;       // concatenated, as in targets (with the padding of padded ones)
  std::vector<int64_t> first_label;  // (N): index into labels
  std::vector<int64_t> length;       // (N)
  std::vector<int64_t> frames;       // (N)
  std::vector<char> valid;           // (N): 0 where a length or a label breaks the rules

  bool is_live(int64_t t, int64_t n) const { return t < frames[n]; }
};

// Reads lengths and labels. What breaks the rules is an error with `validate`; otherwise it makes that sample
// invalid: all its frames count as live and none of its labels is looked at.
Batch read_batch(const Shape& shape, const Tensor& targets, const Tensor& input_lengths,
                 const Tensor& target_lengths, int64_t blank, bool validate);

}  // namespace crnn::ctc_loss
