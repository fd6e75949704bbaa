// The forward-backward recursion of one sample, on the host.
//
// Recurrence, with p the emission of a frame and blank i standing before label i:
//   alpha'(blank i) = (alpha(blank i) + alpha(label i-1)) * p(blank)
//   alpha'(label i) = (alpha(label i) + alpha(blank i) + [label i != label i-1] alpha(label i-1)) * p(label
//   i)
// beta is the same recurrence from the last frame to the first with the labels in reverse; there the blank
// that comes before label i on the way is blank i+1. So one routine serves both: a Side keeps, for each
// label, the label's state and the state of the blank that precedes it in the side's own direction, and
// beside them the one blank that comes last.
//
// alpha walks up and beta walks down at the same time. In the middle they meet: the sum over the transitions
// between the two halves is P(target). Going on, each side multiplies what it computes with what the other
// stored there, which is the occupancy of every frame after T steps in all, with the label states of half the
// frames stored a side. The two sides are independent chains of operations, so the processor overlaps them.
//
// The occupancy of blank is not computed: it is 1 minus those of the labels.
#pragma once

#include <cmath>
#include <memory>

#include "common/rows.h"
#include "ctc_loss/lattice.h"

namespace crnn {

// One sample as the recursion sees it.
template <class Real>
struct Sample {
  int64_t frames;
  int64_t target_length;
  const int32_t* labels;     // (S)
  const Real* peak;          // (T)
  const Real* inverse_sum;   // (T)
  const Real* blank_logits;  // (T)
  Real* posterior;           // (T, S): the labels' logits on the way in, their occupancies on the way out
};

// One direction's states. Arrays of label states hold a block of zeros (extended-range ones) on either side.
template <class Real>
struct Side {
  // The label states after the latest frame, and those before it, in turn.
  Real* label_mantissa[2];
  ExponentOf<Real>* label_exponent[2];
  // The blank before each label in this direction.
  Real* blank_mantissa;
  ExponentOf<Real>* blank_exponent;
  // The blank after the last label in this direction.
  Extended<Real> last_blank;
  // What the other side will meet: the label states of this side's first half, (steps, S).
  Real* stored_mantissa;
  ExponentOf<Real>* stored_exponent;
};

// Scratch memory of one thread; it grows to the largest sample the thread has seen.
template <class Real>
class RecursionWorkspace {
 public:
  using Int = ExponentOf<Real>;

  Side<Real> alpha, beta;
  Real* blank_emission_mantissa;  // (T)
  Int* blank_emission_exponent;   // (T)
  // -1 where a path may go from label i-1 to label i without a blank, 0 elsewhere: (S + 1).
  Int* skip_mask;

  void prepare(int64_t frames, int64_t target_length, bool store) {
    const int64_t row = rounded_up_to_lanes(target_length + 1) + 2 * kLanes;
    // A row is stored in whole blocks: what hangs over its end is overwritten by the next one.
    const int64_t stored = store ? (frames + 1) / 2 * target_length + kLanes : 0;
    const int64_t count = 2 * (3 * row + stored) + rounded_up_to_lanes(frames);
    if (count + row > capacity_) {
      capacity_ = count + row;
      mantissas_.reset(new Real[capacity_]);
      exponents_.reset(new Int[capacity_]);
    }
    int64_t offset = 0;
    const auto take = [&](Real*& mantissa, Int*& exponent, int64_t elements, int64_t begin) {
      mantissa = mantissas_.get() + offset + begin;
      exponent = exponents_.get() + offset + begin;
      offset += elements;
    };
    for (Side<Real>* side : {&alpha, &beta}) {
      take(side->label_mantissa[0], side->label_exponent[0], row, kLanes);
      take(side->label_mantissa[1], side->label_exponent[1], row, kLanes);
      take(side->blank_mantissa, side->blank_exponent, row, kLanes);
      take(side->stored_mantissa, side->stored_exponent, stored, 0);
    }
    take(blank_emission_mantissa, blank_emission_exponent, rounded_up_to_lanes(frames), 0);
    skip_mask = exponents_.get() + offset + kLanes;
  }

 private:
  int64_t capacity_ = 0;
  std::unique_ptr<Real[]> mantissas_;
  std::unique_ptr<Int[]> exponents_;
};

enum Direction : int { kForward = 1, kBackward = -1 };

template <class Real>
CRNN_INLINE Extended<Real> emission(Real logit, Real peak, Real inverse_sum) {
  const Extended<Real> term = exp2_extended<Real>((double(logit) - double(peak)) * kLog2E);
  return {term.mantissa * inverse_sum, term.exponent};
}

// 1. Scratch memory, the skip rule and the emissions of blank.
template <class Real>
CRNN_INLINE void start(const Sample<Real>& sample, RecursionWorkspace<Real>& work) {
  using Int = ExponentOf<Real>;
  const int64_t target_length = sample.target_length;
  const int64_t padded = rounded_up_to_lanes(target_length + 1);
  for (Side<Real>* side : {&work.alpha, &work.beta}) {
    for (int64_t i = -kLanes; i < padded + kLanes; ++i) {
      side->label_mantissa[0][i] = side->label_mantissa[1][i] = side->blank_mantissa[i] = Real(1);
      side->label_exponent[0][i] = side->label_exponent[1][i] = side->blank_exponent[i] = kZeroExponent;
    }
    side->last_blank = Extended<Real>::zero();
  }
  // Before the first frame of its direction a path stands on the blank from which both first states can be
  // reached.
  if (target_length == 0) {
    work.alpha.last_blank = work.beta.last_blank = Extended<Real>::one();
  } else {
    work.alpha.blank_exponent[0] = 0;
    work.beta.blank_exponent[target_length - 1] = 0;
  }

  for (int64_t i = 0; i < padded; ++i) work.skip_mask[i] = 0;
  for (int64_t i = 1; i < target_length; ++i)
    work.skip_mask[i] = -Int(may_skip_blank(sample.labels[i - 1], sample.labels[i]));

  for (int64_t t = 0; t < sample.frames; ++t) {
    const Extended<Real> p = emission(sample.blank_logits[t], sample.peak[t], sample.inverse_sum[t]);
    work.blank_emission_mantissa[t] = p.mantissa;
    work.blank_emission_exponent[t] = p.exponent;
  }
}

// What a side does with the label states of a frame besides keeping them.
enum class Task { kNothing, kStore, kMeet };

// P(target), as the meeting sides need it.
template <class Real>
struct Total {
  Real inverse_mantissa;
  ExponentOf<Real> exponent;
};

// The step of kLanes labels and of the blanks before them, from `from` to `to`.
template <Direction kDirection, Task kTask, class Real>
CRNN_INLINE void advance_block(const Side<Real>& side, int parity,
                               const ExponentOf<Real>* __restrict skip_mask, Real peak, Real inverse_sum,
                               Extended<Real> blank_emission, int64_t begin, int lanes, Real* posterior,
                               Real* __restrict stored_mantissa, ExponentOf<Real>* __restrict stored_exponent,
                               Total<Real> total) {
  using Int = ExponentOf<Real>;
  const Real* __restrict from_mantissa = side.label_mantissa[parity] + begin;
  const Int* __restrict from_exponent = side.label_exponent[parity] + begin;
  Real* __restrict to_mantissa = side.label_mantissa[1 - parity] + begin;
  Int* __restrict to_exponent = side.label_exponent[1 - parity] + begin;
  Real* __restrict blank_mantissa = side.blank_mantissa + begin;
  Int* __restrict blank_exponent = side.blank_exponent + begin;
  posterior += begin;
  stored_mantissa += begin;
  stored_exponent += begin;
  skip_mask += begin + (kDirection == kBackward ? 1 : 0);

#pragma GCC ivdep
  for (int j = 0; j < kLanes; ++j) {
    const Extended<Real> label{from_mantissa[j], from_exponent[j]};
    const Extended<Real> previous_label{from_mantissa[j - kDirection], from_exponent[j - kDirection]};
    const Extended<Real> blank{blank_mantissa[j], blank_exponent[j]};

    const Extended<Real> either = blank + previous_label;
    const bool skip = skip_mask[j] != 0;
    const Extended<Real> inflow{skip ? either.mantissa : blank.mantissa,
                                skip ? either.exponent : blank.exponent};
    // The lattice before and after this frame's emission.
    const Extended<Real> before = label + inflow;
    const Real logit = j < lanes ? posterior[j] : -std::numeric_limits<Real>::infinity();
    const Extended<Real> after = normalised(before * emission(logit, peak, inverse_sum));
    const Extended<Real> blank_after = normalised(either * blank_emission);

    to_mantissa[j] = after.mantissa;
    to_exponent[j] = after.exponent;
    blank_mantissa[j] = blank_after.mantissa;
    blank_exponent[j] = blank_after.exponent;
    // alpha counts the frame's emission and beta does not, so that their product counts it once.
    const Extended<Real> share = kDirection == kForward ? after : before;
    if constexpr (kTask == Task::kStore) {
      stored_mantissa[j] = share.mantissa;
      stored_exponent[j] = share.exponent;
    }
    if constexpr (kTask == Task::kMeet) {
      const Extended<Real> other{stored_mantissa[j], stored_exponent[j]};
      const Extended<Real> joint = share * other;
      const Real occupancy =
          to_real(Extended<Real>{joint.mantissa * total.inverse_mantissa, joint.exponent - total.exponent});
      if (j < lanes) posterior[j] = occupancy;
    }
  }
}

// One frame of one side. `stored` is the row of this side's own store, or the row that it meets.
template <Direction kDirection, Task kTask, class Real>
CRNN_INLINE void advance(const Sample<Real>& sample, const RecursionWorkspace<Real>& work, Side<Real>& side,
                         int64_t step, const Side<Real>& store, int64_t stored_row, Total<Real> total) {
  const int64_t target_length = sample.target_length;
  const int64_t t = kDirection == kForward ? step : sample.frames - 1 - step;
  const int parity = int(step & 1);
  const Extended<Real> blank_emission{work.blank_emission_mantissa[t], work.blank_emission_exponent[t]};
  Real* posterior = sample.posterior + t * target_length;
  Real* stored_mantissa = store.stored_mantissa + stored_row * target_length;
  auto* stored_exponent = store.stored_exponent + stored_row * target_length;

  const LabelRange range = reachable_labels(t, sample.frames, target_length);
  const int64_t first = range.begin / kLanes * kLanes;
  int64_t begin = first;
  const auto blank_end = kDirection == kForward ? target_length - 1 : int64_t(0);
  const Extended<Real> last_label{side.label_mantissa[parity][blank_end],
                                  side.label_exponent[parity][blank_end]};
  side.last_blank = normalised((side.last_blank + last_label) * blank_emission);

  for (; begin < range.end && begin + kLanes <= target_length; begin += kLanes)
    advance_block<kDirection, kTask>(side, parity, work.skip_mask, sample.peak[t], sample.inverse_sum[t],
                                     blank_emission, begin, kLanes, posterior, stored_mantissa,
                                     stored_exponent, total);
  if (begin < range.end) {
    advance_block<kDirection, kTask>(side, parity, work.skip_mask, sample.peak[t], sample.inverse_sum[t],
                                     blank_emission, begin, int(target_length - begin), posterior,
                                     stored_mantissa, stored_exponent, total);
    begin = target_length;
  }
  if constexpr (kTask == Task::kMeet) {
    for (int64_t i = 0; i < first; ++i) posterior[i] = 0;
    for (int64_t i = begin; i < target_length; ++i) posterior[i] = 0;
  }
}

// The sum over all transitions from alpha's latest frame to beta's.
template <class Real>
CRNN_INLINE Extended<double> meet(const Sample<Real>& sample, const RecursionWorkspace<Real>& work,
                                  int64_t alpha_steps) {
  const Side<Real>& alpha = work.alpha;
  const Side<Real>& beta = work.beta;
  const int alpha_parity = int(alpha_steps & 1);
  const int beta_parity = int((sample.frames - alpha_steps) & 1);
  const auto wide = [](Real mantissa, auto exponent) { return Extended<double>{double(mantissa), exponent}; };
  const auto blank_before = [&](int64_t i) {
    return i < sample.target_length ? wide(alpha.blank_mantissa[i], alpha.blank_exponent[i])
                                    : wide(alpha.last_blank.mantissa, alpha.last_blank.exponent);
  };
  const auto beta_label = [&](int64_t i) {
    return wide(beta.label_mantissa[beta_parity][i], beta.label_exponent[beta_parity][i]);
  };
  const LabelRange range = reachable_labels(alpha_steps - 1, sample.frames, sample.target_length);
  Extended<double> total = Extended<double>::zero();
  if (range.begin == 0)
    total = normalised(blank_before(0) *
                       normalised(wide(beta.last_blank.mantissa, beta.last_blank.exponent) + beta_label(0)));
  for (int64_t i = range.begin; i < range.end; ++i) {
    const Extended<double> blank = wide(beta.blank_mantissa[i], beta.blank_exponent[i]);
    const Extended<double> either = normalised(blank + beta_label(i + 1));
    const Extended<double> inflow = work.skip_mask[i + 1] != 0 ? either : blank;
    const Extended<double> label =
        wide(alpha.label_mantissa[alpha_parity][i], alpha.label_exponent[alpha_parity][i]);
    total = normalised(total + normalised(label * normalised(beta_label(i) + inflow)));
    total = normalised(total + normalised(blank_before(i + 1) * either));
  }
  return total;
}

template <Task kTask, class Real>
CRNN_INLINE void first_half(const Sample<Real>& sample, RecursionWorkspace<Real>& work, int64_t middle) {
  for (int64_t step = 0; step < middle; ++step) {
    advance<kForward, kTask>(sample, work, work.alpha, step, work.alpha, step, Total<Real>{});
    if (step < sample.frames - middle)
      advance<kBackward, kTask>(sample, work, work.beta, step, work.beta, step, Total<Real>{});
  }
}

// Negative log-likelihood of the target, +inf if it is impossible. With `occupancy`, posterior holds the
// labels' occupancies afterwards, unless the loss is +inf; without, the recursion ends where the sides meet.
template <class Real>
struct Recursion {
  static CRNN_INLINE void run(const Sample<Real>& sample, RecursionWorkspace<Real>* workspace, bool occupancy,
                              double* loss) {
    RecursionWorkspace<Real>& work = *workspace;
    const int64_t frames = sample.frames;
    // 2. Both sides, up to the middle: alpha over [0, middle), beta over [middle, frames).
    const int64_t middle = (frames + 1) / 2;
    work.prepare(frames, sample.target_length, occupancy);
    start(sample, work);
    if (occupancy) {
      first_half<Task::kStore>(sample, work, middle);
    } else {
      first_half<Task::kNothing>(sample, work, middle);
    }
    // 3. The total.
    const Extended<double> z = meet(sample, work, middle);
    if (z.exponent < kVanishedExponent) {
      *loss = std::numeric_limits<double>::infinity();
      return;
    }
    *loss = -kLn2 * (double(z.exponent) + std::log2(z.mantissa));
    if (!occupancy) return;
    // 4. On to the ends: each side meets what the other stored.
    const Total<Real> total{Real(1 / z.mantissa), ExponentOf<Real>(z.exponent)};
    for (int64_t step = frames - middle; step < frames; ++step) {
      advance<kBackward, Task::kMeet>(sample, work, work.beta, step, work.alpha, frames - 1 - step, total);
      if (step >= middle)
        advance<kForward, Task::kMeet>(sample, work, work.alpha, step, work.beta, frames - 1 - step, total);
    }
  }
};

}  // namespace crnn
