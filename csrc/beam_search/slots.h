// The prefixes of a beam, on the host, each in a slot that it keeps as long as it stays.
//
// What every frame computes for all of them lies in arrays, so that it is done in vectors; the rest of a
// prefix is in its entry. An empty slot computes on with probability zero.
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
  void put(int64_t i, Extended<Real> x) {
    mantissas_[i] = x.mantissa;
    exponents_[i] = x.exponent;
  }
  template <class Reals>
  CRNN_INLINE Extended<Reals> vector_at(int64_t i) const {
    return {load<Reals>(mantissas_.data() + i), load<ExponentOf<Reals>>(exponents_.data() + i)};
  }
  template <class Reals>
  CRNN_INLINE void put_vector(int64_t i, Extended<Reals> x) {
    store(mantissas_.data() + i, x.mantissa);
    store(exponents_.data() + i, x.exponent);
  }

 private:
  std::vector<Real> mantissas_;
  std::vector<ExponentOf<Real>> exponents_;
};

// The probabilities of all prefixes at one frame.
template <class Real>
struct PrefixProbabilities {
  ExtendedArray<Real> blank, label, total;
  std::vector<double> order;  // approx_log2(total)

  void resize(int64_t count) {
    for (ExtendedArray<Real>* numbers : {&blank, &label, &total}) numbers->resize(count);
    order.resize(count);
  }
  void put(int64_t i, const PrefixProbability<Real>& mass) {
    blank.put(i, mass.blank);
    label.put(i, mass.label);
    total.put(i, mass.total);
    order[i] = approx_log2(mass.total);
  }
};

// The probabilities of all slots, a frame updated.
template <class Real>
struct AdvanceSlots {
  // incoming, logit: (count), as in advance_prefix and of each last label
  template <int kBytes>
  static CRNN_INLINE void run(int64_t count, Real blank_logit, Real row_max, Real inverse_sum,
                              const PrefixProbabilities<Real>& now, const ExtendedArray<Real>& incoming,
                              const Real* logit, PrefixProbabilities<Real>* next) {
    // As many lanes as vectors of double have.
    using Reals = Vector<Real, kBytes / sizeof(double) * sizeof(Real)>;
    const Reals row_maxima = broadcast<Reals>(row_max), inverse_sums = broadcast<Reals>(inverse_sum);
    const Extended<Reals> of_blank = emission(broadcast<Reals>(blank_logit), row_maxima, inverse_sums);
    for (int64_t i = 0; i < count; i += kLanesOf<Reals>) {
      const PrefixProbability<Reals> mass =
          advance_prefix(now.total.template vector_at<Reals>(i), now.label.template vector_at<Reals>(i),
                         incoming.template vector_at<Reals>(i), of_blank,
                         emission(load<Reals>(logit + i), row_maxima, inverse_sums));
      next->blank.put_vector(i, mass.blank);
      next->label.put_vector(i, mass.label);
      next->total.put_vector(i, mass.total);
      store(next->order.data() + i, approx_log2(mass.total));
    }
  }
};

}  // namespace crnn::beam_search
