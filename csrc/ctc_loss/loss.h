// The loss of a sample whose emissions are there, on the host.
#pragma once

#include "common/isa.h"
#include "ctc_loss/recursion.h"

namespace crnn::ctc_loss {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// In nats; NaN if a row's statistics are, +inf if the target is impossible. With `with_grad`, label_mantissa
// holds the labels' posteriors afterwards, unless the loss is +inf.
template <class Real>
double compute_loss(const Sample<Real>& sample, RecursionWorkspace<Real>& workspace, bool with_grad) {
  const auto is_number = [](Real x) { return x == x; };
  if (!std::all_of(sample.inverse_sum, sample.inverse_sum + sample.frames, is_number))
    return std::numeric_limits<double>::quiet_NaN();
  if (sample.frames < frames_needed(sample.labels, sample.target_length)) return kInfinity;
  if (sample.frames == 0) return 0;
  double loss;
  run_vectorized<Recursion<Real>>(sample, &workspace, with_grad, &loss);
  return loss;
}

}  // namespace crnn::ctc_loss
