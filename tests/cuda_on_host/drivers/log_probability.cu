// The log_probability operator: several texts per sample, with the forward kernels of the loss.
#include "drivers/text_problems.h"
#include "forward_backward/kernels.cuh"

namespace {

namespace ctc = crnn::forward_backward;
using driver::DeviceTensor;
using driver::kInfinity;
using driver::kNaN;
using driver::TextProblem;
using reference::Table;

constexpr crnn::gpu::Stream kStream = {nullptr, "log_probability"};

template <class Storage>
class Run {
 public:
  using Real = typename crnn::ComputeType<Storage>::Real;

  explicit Run(const TextProblem& problem)
      : problem_(problem), shape_(problem.shape()), logits_(problem.logits<Storage>()) {
    for (int64_t m = 0; m < shape_.texts(); ++m) {
      const bool valid = problem.valid_lengths()[m];
      const Table rows = valid ? rows_of(problem, logits_, m / shape_.texts_per_sample) : Table();
      const bool sound = is_well_defined(problem, rows, size_t(m));
      expected_.push_back(sound ? reference::log_probability(log_probs_of(problem, rows),
                                                             problem.labels_of(size_t(m)), problem.blank)
                                : kNaN);
    }
  }

  void operator()() {
    for (const crnn::BatchShape& slice : driver::test_slices(shape_)) run(slice);
  }

 private:
  void run(const crnn::BatchShape& slice) {
    using State = ctc::PackedExtended<Real>;
    const driver::StridedLayout placement(problem_.layout, shape_.frames, shape_.samples, shape_.classes);
    const DeviceTensor<Storage> logits = placement.tensor(logits_, driver::from_double<Storage>(kNaN));
    const driver::DeviceTexts device_texts(problem_, kStream);
    const DeviceTensor<State> emissions({ctc::emission_elements(slice)}),
        states({ctc::state_elements(slice)});
    const DeviceTensor<Real> statistics({2 * slice.frames * slice.texts()}), log_p({shape_.texts()});

    ctc::launch_forward<Storage, Real>(
        crnn::TncView<const Storage>(logits.data(), logits), device_texts.batch(), problem_.normalize, slice,
        {emissions.data(), nullptr, states.data(), ctc::Saved<Real>(statistics.data(), slice)},
        {ctc::Reduction::kNone, false, false, true}, log_p.data(), nullptr, kStream);

    driver::expect_close("log_p", log_p, expected_, sizeof(Real) == 4 ? 1e-5 : 1e-11);
    determinism_.expect_bitwise_equal("log_p", log_p);
  }

  TextProblem problem_;
  crnn::BatchShape shape_;
  std::vector<Storage> logits_;
  std::vector<double> expected_;
  driver::DeterminismCheck determinism_;
};

}  // namespace

int main(int argc, char** argv) {
  return driver::run(driver::text_cases<Run>(), argc, argv);
}
