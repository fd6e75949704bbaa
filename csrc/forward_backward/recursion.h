// The forward-backward recursion of one sample on the host. See lattice_step.h for the step.
//
// For each label, a Pass stores the state of the label and of the blank that precedes it in the direction of
// the pass, plus the one blank at the end. The two passes are independent chains of operations, so the
// processor overlaps them. The posterior of blank is not computed here: it is 1 minus those of the labels.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "common/exp2.h"
#include "common/isa.h"
#include "common/rows.h"
#include "forward_backward/lattice_step.h"
#include "targets/lattice.h"

namespace crnn::forward_backward {

// One sample as the recursion sees it. The label arrays have room for one vector after their last row.
template <class Real>
struct Sample {
  int64_t frames;
  int64_t target_length;
  const int32_t* labels;             // (S)
  Real* row_max;                     // (T): row statistics; row_max 0 and inverse_sum 1 if there are none
  Real* inverse_sum;                 // (T)
  Real* blank_mantissa;              // (T): emissions of blank
  ExponentOf<Real>* blank_exponent;  // (T)
  Real* label_mantissa;              // (T, S): emissions of the labels, replaced by their posteriors
  ExponentOf<Real>* label_exponent;  // (T, S)
};

// The states of one direction, with room for one vector after the last label.
template <class Real>
struct Pass {
  Real* label_mantissa;
  ExponentOf<Real>* label_exponent;
  // The blank that precedes each label in this direction.
  Real* blank_mantissa;
  ExponentOf<Real>* blank_exponent;
  // The blank after the last label in this direction.
  Extended<Real> last_blank;
  // Label states of the first half, stored for the other pass: (steps, S).
  Real* stored_mantissa;
  ExponentOf<Real>* stored_exponent;
};

// Scratch memory of one thread, for one sample at a time. It grows to the largest sample so far.
template <class Real>
class RecursionWorkspace {
 public:
  using Int = ExponentOf<Real>;

  // Returns the sample with uninitialized arrays. The caller sets row_max and inverse_sum.
  Sample<Real> prepare(const int32_t* labels, int64_t frames, int64_t target_length, bool with_grad) {
    const int64_t row = state_count(target_length);
    // Rows are written as whole vectors; the next row overwrites the excess.
    const int64_t stored_count = with_grad ? (frames + 1) / 2 * target_length + kMaxLanes : 0;
    const int64_t emission_count = frames * target_length + kMaxLanes;
    const int64_t count = 2 * (2 * row + stored_count) + row + emission_count + frames;
    if (count > capacity_) {
      capacity_ = count;
      mantissas_.reset(new Real[capacity_]);
      exponents_.reset(new Int[capacity_]);
    }
    int64_t offset = 0;
    const auto take = [&](Real*& mantissa, Int*& exponent, int64_t elements) {
      mantissa = mantissas_.get() + offset;
      exponent = exponents_.get() + offset;
      offset += elements;
    };
    for (Pass<Real>* pass : {&alpha, &beta}) {
      take(pass->label_mantissa, pass->label_exponent, row);
      take(pass->blank_mantissa, pass->blank_exponent, row);
      take(pass->stored_mantissa, pass->stored_exponent, stored_count);
    }
    Sample<Real> sample{};
    sample.frames = frames;
    sample.target_length = target_length;
    sample.labels = labels;
    Real* unused;
    take(unused, skip_mask, row);
    take(sample.blank_mantissa, sample.blank_exponent, frames);
    take(sample.label_mantissa, sample.label_exponent, emission_count);
    return sample;
  }

  // Size of a state array: one more than the labels, rounded up to vectors, plus one vector.
  static int64_t state_count(int64_t target_length) {
    return round_up_to_lanes(target_length + 1) + kMaxLanes;
  }

  Pass<Real> alpha, beta;
  std::vector<Extended<double>> terms;
  // (S + 1): -1 where a path may go from label i-1 to label i without a blank, 0 elsewhere.
  Int* skip_mask;

 private:
  int64_t capacity_ = 0;
  std::unique_ptr<Real[]> mantissas_;
  std::unique_ptr<Int[]> exponents_;
};

enum Direction : int { kForward = 1, kBackward = -1 };

// 1. The states before the first frame, and the skip mask.
template <class Real>
CRNN_INLINE void start(const Sample<Real>& sample, RecursionWorkspace<Real>& work) {
  const int64_t target_length = sample.target_length;
  const int64_t row = work.state_count(target_length);
  for (Pass<Real>* pass : {&work.alpha, &work.beta}) {
    std::fill_n(pass->label_mantissa, row, Real(1));
    std::fill_n(pass->blank_mantissa, row, Real(1));
    std::fill_n(pass->label_exponent, row, kZeroExponent);
    std::fill_n(pass->blank_exponent, row, kZeroExponent);
    pass->last_blank = Extended<Real>::zero();
  }
  // Before the first frame of its direction, a path is in the blank from which both first states can be
  // reached.
  if (target_length == 0) {
    work.alpha.last_blank = work.beta.last_blank = Extended<Real>::one();
  } else {
    work.alpha.blank_exponent[0] = 0;
    work.beta.blank_exponent[target_length - 1] = 0;
  }

  std::fill_n(work.skip_mask, row, 0);
  for (int64_t i = 1; i < target_length; ++i)
    work.skip_mask[i] = -ExponentOf<Real>(may_skip_blank(sample.labels[i - 1], sample.labels[i]));
}

// One frame of one pass: what all vectors of its labels share.
template <class Real>
struct FrameArrays {
  Extended<Real> blank_emission;
  Real* label_mantissa;                    // (S): emissions, replaced by posteriors
  const ExponentOf<Real>* label_exponent;  // (S)
  Real* stored_mantissa;                   // (S): the row to store, or the row that the other pass has stored
  ExponentOf<Real>* stored_exponent;       // (S)
  Normalizer<Real> total;
};

// Advances the vector of labels starting at `begin`, and the blanks that precede them. lanes: how many of its
// lanes are labels. previous_vector: the previous vector of labels in the direction of the pass, before its
// step. Returns this vector of labels before its step.
template <Direction kDirection, PassMode kMode, class Reals, class Lanes, class Real>
CRNN_INLINE Extended<Reals> advance_vector(const Pass<Real>& pass, const ExponentOf<Real>* skip_mask,
                                           const FrameArrays<Real>& frame, int64_t begin, Lanes lanes,
                                           Extended<Reals> previous_vector) {
  using Ints = ExponentOf<Reals>;
  const auto load_states = [begin](const Real* mantissa,
                                   const ExponentOf<Real>* exponent) CRNN_INLINE_LAMBDA {
    return Extended<Reals>{load<Reals>(mantissa + begin), load<Ints>(exponent + begin)};
  };
  const auto store_states = [begin](Real* mantissa, ExponentOf<Real>* exponent, Extended<Reals> states)
                                CRNN_INLINE_LAMBDA {
                                  store(mantissa + begin, states.mantissa);
                                  store(exponent + begin, states.exponent);
                                };
  const Extended<Reals> label = load_states(pass.label_mantissa, pass.label_exponent);
  const Extended<Reals> blank = load_states(pass.blank_mantissa, pass.blank_exponent);
  Extended<Reals> previous_label;
  if constexpr (kDirection == kForward) {
    previous_label = {shift_lanes_up(label.mantissa, previous_vector.mantissa),
                      shift_lanes_up(label.exponent, previous_vector.exponent)};
  } else {
    previous_label = {shift_lanes_down(label.mantissa, previous_vector.mantissa),
                      shift_lanes_down(label.exponent, previous_vector.exponent)};
  }
  const Ints skip = load<Ints>(skip_mask + begin + (kDirection == kForward ? 0 : 1));
  Extended<Reals> emission{load<Reals>(frame.label_mantissa + begin),
                           load<Ints>(frame.label_exponent + begin)};
  const auto is_label = lane_indices<Ints>() < broadcast<Ints>(lanes);
  emission.exponent = is_label ? emission.exponent : broadcast<Ints>(kZeroExponent);
  const Extended<Reals> blank_emission{broadcast<Reals>(frame.blank_emission.mantissa),
                                       broadcast<Ints>(frame.blank_emission.exponent)};

  const Extended<Reals> either = blank + previous_label;
  const Extended<Reals> inflow{skip ? either.mantissa : blank.mantissa,
                               skip ? either.exponent : blank.exponent};
  // The states before and after this frame's emission.
  const Extended<Reals> before = label + inflow;
  const Extended<Reals> after = normalized(before * emission);
  store_states(pass.label_mantissa, pass.label_exponent, after);
  store_states(pass.blank_mantissa, pass.blank_exponent, normalized(either * blank_emission));

  // alpha includes the emission and beta does not, so their product counts it once.
  const Extended<Reals> factor = kDirection == kForward ? after : before;
  if constexpr (kMode == PassMode::kStore) store_states(frame.stored_mantissa, frame.stored_exponent, factor);
  if constexpr (kMode == PassMode::kCombine) {
    const Extended<Reals> joint = factor * load_states(frame.stored_mantissa, frame.stored_exponent);
    const Extended<Reals> posterior{joint.mantissa * broadcast<Reals>(frame.total.inverse_mantissa),
                                    joint.exponent - broadcast<Ints>(frame.total.exponent)};
    store(frame.label_mantissa + begin, is_label ? to_real(posterior) : emission.mantissa);
  }
  return label;
}

// Advances one pass by one frame. `store`: the pass that owns the stored rows; the pass itself, or the other
// one when combining.
template <Direction kDirection, PassMode kMode, class Reals, class Real>
CRNN_INLINE void advance(const Sample<Real>& sample, const RecursionWorkspace<Real>& work, Pass<Real>& pass,
                         int64_t step, const Pass<Real>& store, int64_t stored_row, Normalizer<Real> total) {
  constexpr int kLanes = kLanesOf<Reals>;
  constexpr std::integral_constant<int, kLanes> kFullVector;
  const int64_t target_length = sample.target_length;
  const int64_t t = kDirection == kForward ? step : sample.frames - 1 - step;
  const int64_t row = t * target_length, stored = stored_row * target_length;
  const FrameArrays<Real> frame{{sample.blank_mantissa[t], sample.blank_exponent[t]},
                                sample.label_mantissa + row,
                                sample.label_exponent + row,
                                store.stored_mantissa + stored,
                                store.stored_exponent + stored,
                                total};

  // The last blank has no outflow; only the total probability needs it.
  if constexpr (kMode != PassMode::kCombine) {
    const int64_t last = kDirection == kForward ? target_length - 1 : 0;
    const Extended<Real> last_label =
        target_length == 0 ? Extended<Real>::zero()
                           : Extended<Real>{pass.label_mantissa[last], pass.label_exponent[last]};
    pass.last_blank = normalized((pass.last_blank + last_label) * frame.blank_emission);
  }

  // The vectors of reachable labels, in the direction of the pass. The highest one may be partial.
  const LabelRange range = reachable_labels(t, sample.frames, target_length);
  const int64_t first = range.begin / kLanes * kLanes;
  const int64_t full_end = std::min(range.end + kLanes - 1, target_length) / kLanes * kLanes;
  const bool has_partial = full_end < range.end;
  const auto load_labels = [&pass](int64_t begin) CRNN_INLINE_LAMBDA {
    return Extended<Reals>{load<Reals>(pass.label_mantissa + begin),
                           load<ExponentOf<Reals>>(pass.label_exponent + begin)};
  };
  if constexpr (kDirection == kForward) {
    Extended<Reals> previous = first == 0 ? Extended<Reals>::zero() : load_labels(first - kLanes);
    for (int64_t begin = first; begin < full_end; begin += kLanes)
      previous =
          advance_vector<kDirection, kMode, Reals>(pass, work.skip_mask, frame, begin, kFullVector, previous);
    if (has_partial)
      advance_vector<kDirection, kMode, Reals>(pass, work.skip_mask, frame, full_end,
                                               int(target_length - full_end), previous);
  } else {
    Extended<Reals> previous = load_labels(has_partial ? full_end + kLanes : full_end);
    if (has_partial)
      previous = advance_vector<kDirection, kMode, Reals>(pass, work.skip_mask, frame, full_end,
                                                          int(target_length - full_end), previous);
    for (int64_t begin = full_end - kLanes; begin >= first; begin -= kLanes)
      previous =
          advance_vector<kDirection, kMode, Reals>(pass, work.skip_mask, frame, begin, kFullVector, previous);
  }
  if constexpr (kMode == PassMode::kCombine) {
    std::fill(frame.label_mantissa, frame.label_mantissa + std::min(first, target_length), Real(0));
    const int64_t end = has_partial ? target_length : std::max(first, full_end);
    std::fill(frame.label_mantissa + end, frame.label_mantissa + target_length, Real(0));
  }
}

// Sums over all transitions from the latest frame of alpha to that of beta.
template <class Real>
CRNN_INLINE Extended<double> total_probability(const Sample<Real>& sample, RecursionWorkspace<Real>& work,
                                               int64_t alpha_steps) {
  const Pass<Real>& alpha = work.alpha;
  const Pass<Real>& beta = work.beta;
  const auto to_double = [](Real mantissa, auto exponent) {
    return Extended<double>{double(mantissa), exponent};
  };
  const auto blank_before = [&](int64_t i) {
    return i < sample.target_length ? to_double(alpha.blank_mantissa[i], alpha.blank_exponent[i])
                                    : to_double(alpha.last_blank.mantissa, alpha.last_blank.exponent);
  };
  const auto beta_label = [&](int64_t i) {
    return to_double(beta.label_mantissa[i], beta.label_exponent[i]);
  };
  const LabelRange range = reachable_labels(alpha_steps - 1, sample.frames, sample.target_length);
  std::vector<Extended<double>>& terms = work.terms;
  terms.assign(1, Extended<double>::zero());
  if (range.begin == 0)
    terms.push_back(blank_before(0) *
                    (to_double(beta.last_blank.mantissa, beta.last_blank.exponent) + beta_label(0)));
  for (int64_t i = range.begin; i < range.end; ++i) {
    const Extended<double> blank = to_double(beta.blank_mantissa[i], beta.blank_exponent[i]);
    const Extended<double> either = blank + beta_label(i + 1);
    const Extended<double> inflow = work.skip_mask[i + 1] != 0 ? either : blank;
    terms.push_back(to_double(alpha.label_mantissa[i], alpha.label_exponent[i]) * (beta_label(i) + inflow));
    terms.push_back(blank_before(i + 1) * either);
  }

  Extended<double> total{0, kZeroExponent};
  for (const Extended<double>& term : terms) total.exponent = maximum(total.exponent, term.exponent);
  for (const Extended<double>& term : terms)
    total.mantissa += ldexp_clamped(term.mantissa, term.exponent - total.exponent);
  return normalized(total);
}

template <PassMode kMode, class Reals, class Real>
CRNN_INLINE void first_half(const Sample<Real>& sample, RecursionWorkspace<Real>& work, int64_t middle) {
  for (int64_t step = 0; step < middle; ++step) {
    advance<kForward, kMode, Reals>(sample, work, work.alpha, step, work.alpha, step, Normalizer<Real>{});
    if (step < sample.frames - middle)
      advance<kBackward, kMode, Reals>(sample, work, work.beta, step, work.beta, step, Normalizer<Real>{});
  }
}

// Computes the negative log-likelihood of the target, +inf if it is impossible. With `with_grad`, replaces
// label_mantissa by the posteriors of the labels, unless the loss is +inf. Without it, the recursion ends
// where the passes meet.
template <class Real>
struct Recursion {
  template <int kBytes>
  static CRNN_INLINE void run(const Sample<Real>& sample, RecursionWorkspace<Real>* workspace, bool with_grad,
                              double* loss) {
    // A short target does not fill long vectors: use shorter ones.
    if constexpr (kBytes > 16) {
      if (sample.target_length * int64_t(sizeof(Real)) * 2 <= kBytes)
        return run<kBytes / 2>(sample, workspace, with_grad, loss);
    }
    using Reals = Vector<Real, kBytes>;
    RecursionWorkspace<Real>& work = *workspace;
    const int64_t frames = sample.frames;
    // 2. Both passes, up to the middle: alpha over [0, middle), beta over [middle, frames).
    const int64_t middle = (frames + 1) / 2;
    start(sample, work);
    if (with_grad) {
      first_half<PassMode::kStore, Reals>(sample, work, middle);
    } else {
      first_half<PassMode::kDiscard, Reals>(sample, work, middle);
    }
    // 3. The total probability.
    const Extended<double> z = total_probability(sample, work, middle);
    if (z.exponent < kVanishedExponent) {
      *loss = std::numeric_limits<double>::infinity();
      return;
    }
    *loss = -kLn2 * (double(z.exponent) + std::log2(z.mantissa));
    if (!with_grad) return;
    // 4. On to the ends: each pass combines its states with those that the other pass stored.
    const Normalizer<Real> total{Real(1 / z.mantissa), ExponentOf<Real>(z.exponent)};
    for (int64_t step = frames - middle; step < frames; ++step) {
      advance<kBackward, PassMode::kCombine, Reals>(sample, work, work.beta, step, work.alpha,
                                                    frames - 1 - step, total);
      if (step >= middle)
        advance<kForward, PassMode::kCombine, Reals>(sample, work, work.alpha, step, work.beta,
                                                     frames - 1 - step, total);
    }
  }
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The loss in nats: NaN if a row is invalid, +inf if the target is impossible. With `with_grad`,
// label_mantissa holds the posteriors of the labels afterwards, unless the loss is +inf.
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

}  // namespace crnn::forward_backward
