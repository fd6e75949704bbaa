// The prefixes of a beam, on the host, each in a slot that it keeps as long as it stays.
//
// What every frame computes for all of them lies in arrays, so that it is done in vectors; the rest of a
// prefix is in its record. An empty slot computes on with probability zero.
#pragma once

#include <vector>

#include "beam_search/prefix.h"
#include "common/emission.h"
#include "common/rows.h"

namespace crnn::beam_search {

template <class Real>
class Numbers {
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
struct Masses {
  Numbers<Real> blank, label, total;
  std::vector<double> order;  // order_of(total)

  void resize(int64_t count) {
    for (Numbers<Real>* numbers : {&blank, &label, &total}) numbers->resize(count);
    order.resize(count);
  }
  void put(int64_t i, const Mass<Real>& mass) {
    blank.put(i, mass.blank);
    label.put(i, mass.label);
    total.put(i, mass.total);
    order[i] = order_of(mass.total);
  }
};

// The masses of all slots, a frame later.
template <class Real>
struct Advance {
  // arriving, logit: (count), as in after_frame and of each last label
  template <int kBytes>
  static CRNN_INLINE void run(int64_t count, Real blank_logit, Real peak, Real inverse_sum,
                              const Masses<Real>& now, const Numbers<Real>& arriving, const Real* logit,
                              Masses<Real>* next) {
    // As many lanes as vectors of double have.
    using Reals = Vector<Real, kBytes / sizeof(double) * sizeof(Real)>;
    const Reals peaks = broadcast<Reals>(peak), inverse_sums = broadcast<Reals>(inverse_sum);
    const Extended<Reals> of_blank = emission(broadcast<Reals>(blank_logit), peaks, inverse_sums);
    for (int64_t i = 0; i < count; i += kLanesOf<Reals>) {
      const Mass<Reals> mass =
          after_frame(now.total.template vector_at<Reals>(i), now.label.template vector_at<Reals>(i),
                      arriving.template vector_at<Reals>(i), of_blank,
                      emission(load<Reals>(logit + i), peaks, inverse_sums));
      next->blank.put_vector(i, mass.blank);
      next->label.put_vector(i, mass.label);
      next->total.put_vector(i, mass.total);
      store(next->order.data() + i, order_of(mass.total));
    }
  }
};

}  // namespace crnn::beam_search
