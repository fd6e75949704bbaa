// The probabilities of a beam's prefixes, on the host, as a structure of arrays.
//
// A prefix keeps its slot as long as it is in the beam. What every frame computes for all prefixes is stored
// in arrays for vectorization; the rest of a prefix is in its BeamEntry. Empty slots are computed too, with
// probability zero.
#pragma once

#include <vector>

#include "beam_search/prefix.h"
#include "common/emission.h"
#include "common/rows.h"

namespace crnn::beam_search {

template <class Real>
class ExtendedArray {
 public:
  void resize(int64_t count) {
    mantissas_.resize(count);
    exponents_.resize(count);
  }
  Extended<Real> at(int64_t i) const { return {mantissas_[i], exponents_[i]}; }
  void set(int64_t i, Extended<Real> x) {
    mantissas_[i] = x.mantissa;
    exponents_[i] = x.exponent;
  }
  template <class Reals>
  CRNN_INLINE Extended<Reals> vector_at(int64_t i) const {
    return {load<Reals>(mantissas_.data() + i), load<ExponentOf<Reals>>(exponents_.data() + i)};
  }
  template <class Reals>
  CRNN_INLINE void set_vector(int64_t i, Extended<Reals> x) {
    store(mantissas_.data() + i, x.mantissa);
    store(exponents_.data() + i, x.exponent);
  }

 private:
  std::vector<Real> mantissas_;
  std::vector<ExponentOf<Real>> exponents_;
};

// The PrefixProbability of every slot after a frame.
template <class Real>
struct PrefixProbabilities {
  ExtendedArray<Real> blank, label, total;
  std::vector<double> total_log2;  // approx_log2(total)

  void resize(int64_t count) {
    for (ExtendedArray<Real>* array : {&blank, &label, &total}) array->resize(count);
    total_log2.resize(count);
  }
  void set(int64_t i, const PrefixProbability<Real>& probability) {
    blank.set(i, probability.blank);
    label.set(i, probability.label);
    total.set(i, probability.total);
    total_log2[i] = approx_log2(probability.total);
  }
};

// advance_prefix for all slots.
template <class Real>
struct AdvanceSlots {
  // incoming: (count), see advance_prefix; logit: (count), of each prefix's last label
  template <int kBytes>
  static CRNN_INLINE void run(int64_t count, Real blank_logit, Real row_max, Real inverse_sum,
                              const PrefixProbabilities<Real>& current, const ExtendedArray<Real>& incoming,
                              const Real* logit, PrefixProbabilities<Real>* next) {
    // As many lanes as a vector of doubles has.
    using Reals = Vector<Real, kBytes / sizeof(double) * sizeof(Real)>;
    const Reals row_maxima = broadcast<Reals>(row_max), inverse_sums = broadcast<Reals>(inverse_sum);
    const Extended<Reals> blank_emission = emission(broadcast<Reals>(blank_logit), row_maxima, inverse_sums);
    for (int64_t i = 0; i < count; i += kLanesOf<Reals>) {
      const PrefixProbability<Reals> probability =
          advance_prefix(current.total.template vector_at<Reals>(i),
                         current.label.template vector_at<Reals>(i), incoming.template vector_at<Reals>(i),
                         blank_emission, emission(load<Reals>(logit + i), row_maxima, inverse_sums));
      next->blank.set_vector(i, probability.blank);
      next->label.set_vector(i, probability.label);
      next->total.set_vector(i, probability.total);
      store(next->total_log2.data() + i, approx_log2(probability.total));
    }
  }
};

}  // namespace crnn::beam_search
