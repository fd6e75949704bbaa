// The framework of the drivers. A driver runs the launch functions of an operator on a list of cases and
// compares the results with a plain loop on the host. The same sources are compiled for the CPU, where each
// case runs under every schedule, and by nvcc for a GPU, where compute-sanitizer can check them.
//
// The arguments of a driver are names of cases; without arguments it runs all cases.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/gpu.h"
#include "targets/slices.h"

namespace driver {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// A tensor in device memory, with the part of torch's interface that launch functions need.
template <class T>
class DeviceTensor {
 public:
  // Contiguous and uninitialized, for results.
  explicit DeviceTensor(std::vector<int64_t> shape) : shape_(std::move(shape)) {
    strides_.resize(shape_.size());
    int64_t elements = 1;
    for (size_t i = shape_.size(); i-- > 0;) {
      strides_[i] = elements;
      elements *= shape_[i];
    }
    allocate(elements);
  }

  // Contiguous.
  DeviceTensor(std::vector<int64_t> shape, const std::vector<T>& values) : DeviceTensor(std::move(shape)) {
    copy_in(values);
  }

  // A strided view of a copy of `storage` that starts at element `offset`.
  DeviceTensor(std::vector<int64_t> shape, std::vector<int64_t> strides, int64_t offset,
               const std::vector<T>& storage)
      : shape_(std::move(shape)), strides_(std::move(strides)), offset_(offset) {
    allocate(int64_t(storage.size()));
    copy_in(storage);
  }

  DeviceTensor(const DeviceTensor&) = delete;
  ~DeviceTensor() { cudaFree(memory_); }

  T* data() const { return memory_ + offset_; }
  const void* const_data_ptr() const { return data(); }
  int64_t element_size() const { return sizeof(T); }
  int64_t dim() const { return int64_t(shape_.size()); }
  int64_t size(int64_t i) const { return shape_[i]; }
  int64_t stride(int64_t i) const { return strides_[i]; }

  // The whole storage.
  std::vector<T> to_host() const {
    std::vector<T> values(elements_);
    check(cudaMemcpy(values.data(), memory_, elements_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void allocate(int64_t elements) {
    elements_ = elements;
    check(cudaMalloc(&memory_, elements * sizeof(T)));
  }

  void copy_in(const std::vector<T>& values) {
    check(cudaMemcpy(memory_, values.data(), elements_ * sizeof(T), cudaMemcpyHostToDevice));
  }

  std::vector<int64_t> shape_, strides_;
  int64_t offset_ = 0;
  int64_t elements_ = 0;
  T* memory_ = nullptr;
};

// Memory layouts of a (T, N, C) tensor. kSlice: a slice of a tensor with more classes.
enum class Layout { kContiguous, kBatchFirst, kClassStride, kSlice };

class StridedLayout {
 public:
  StridedLayout(Layout layout, int64_t frames, int64_t samples, int64_t classes)
      : shape_{frames, samples, classes}, strides_{samples * classes, classes, 1} {
    if (layout == Layout::kBatchFirst) strides_ = {classes, frames * classes, 1};
    if (layout == Layout::kClassStride) strides_ = {samples * classes * 2, classes * 2, 2};
    if (layout == Layout::kSlice) {
      strides_ = {samples * (classes + 5), classes + 5, 1};
      offset_ = 3;
    }
  }

  // The storage for `values`, which are in the order (T, N, C); gaps hold `filler`. The storage ends with the
  // last element, so that checkers see an access past the end.
  template <class T>
  std::vector<T> to_storage(const std::vector<T>& values, T filler) const {
    std::vector<T> storage;
    size_t i = 0;
    for (int64_t t = 0; t < shape_[0]; ++t) {
      for (int64_t n = 0; n < shape_[1]; ++n) {
        for (int64_t c = 0; c < shape_[2]; ++c) {
          const size_t at = offset_ + t * strides_[0] + n * strides_[1] + c * strides_[2];
          if (at >= storage.size()) storage.resize(at + 1, filler);
          storage[at] = values[i++];
        }
      }
    }
    return storage;
  }

  template <class T>
  DeviceTensor<T> tensor(const std::vector<T>& values, T filler) const {
    return DeviceTensor<T>(shape_, strides_, offset_, to_storage(values, filler));
  }

 private:
  std::vector<int64_t> shape_, strides_;
  int64_t offset_ = 0;
};

// Replaces logits by a value; kAll selects all frames, samples or classes.
constexpr int64_t kAll = -1;
struct Override {
  int64_t t, n, c;
  double value;

  bool applies_to(int64_t frame, int64_t sample, int64_t label) const {
    const auto is = [](int64_t wanted, int64_t number) { return wanted == kAll || wanted == number; };
    return is(t, frame) && is(n, sample) && is(c, label);
  }
};

template <class T>
double to_double(T x) {
  return double(x);
}
inline double to_double(crnn::Half x) {
  return crnn::to_compute(x);
}
inline double to_double(crnn::BFloat16 x) {
  return crnn::to_compute(x);
}

template <class Storage>
Storage from_double(double x) {
  return crnn::FromCompute<Storage>::convert(typename crnn::ComputeType<Storage>::Real(x));
}

// Throws unless each value is within the larger of two tolerances: absolute, and relative to the expected
// value. NaN equals NaN.
template <class T, class Expected>
void expect_close(const char* name, const DeviceTensor<T>& tensor, const std::vector<Expected>& expected,
                  double relative, double absolute) {
  std::vector<T> values;
  try {
    values = tensor.to_host();
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(std::string(name) + ": " + error.what());
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const double actual = to_double(values[i]), wanted = to_double(expected[i]);
    const bool equal = actual == wanted || (std::isnan(actual) && std::isnan(wanted)) ||
                       std::abs(actual - wanted) <= std::fmax(absolute, relative * std::abs(wanted));
    if (equal) continue;
    std::ostringstream message;
    message.precision(17);
    message << name << "[" << i << "] is " << actual << ", expected " << wanted;
    throw std::runtime_error(message.str());
  }
}

template <class T, class Expected>
void expect_close(const char* name, const DeviceTensor<T>& tensor, const std::vector<Expected>& expected,
                  double tolerance = 0) {
  expect_close(name, tensor, expected, tolerance, tolerance);
}

// The results of the first run of a case. Every schedule must reproduce them bit for bit.
class DeterminismCheck {
 public:
  template <class T>
  void expect_bitwise_equal(const std::string& name, const DeviceTensor<T>& tensor) {
    const std::vector<T> values = tensor.to_host();
    std::vector<unsigned char> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    const auto [first, is_first] = bytes_.emplace(name, bytes);
    if (is_first || first->second == bytes) return;
    const auto differs = std::mismatch(bytes.begin(), bytes.end(), first->second.begin()).first;
    throw std::runtime_error(name + "[" + std::to_string((differs - bytes.begin()) / sizeof(T)) +
                             "] is not bitwise equal to its value under another schedule");
  }

 private:
  std::map<std::string, std::vector<unsigned char>> bytes_;
};

// The slices to test a batch with: the whole batch, and two texts at a time.
inline std::vector<crnn::BatchShape> test_slices(const crnn::BatchShape& shape) {
  return {shape,
          crnn::choose_slice_shape(shape, [](const crnn::BatchShape& slice) { return slice.texts(); }, 2)};
}

// Labels with repetitions, both adjacent and apart.
inline std::vector<int64_t> labels_with_repeats(int64_t count, int64_t classes, int64_t blank = 0) {
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < count; ++i) labels.push_back((blank + 1 + i * i % 7 % (classes - 1)) % classes);
  return labels;
}

struct Case {
  std::string name;
  std::function<void()> run;  // throws on a wrong result
};

struct Schedule {
  const char* name;
  std::function<void()> apply;
};

inline std::vector<Schedule> schedules() {
#ifdef __CUDACC__
  return {{"on the GPU", [] {}}};
#else
  constexpr uint64_t kSeed = 1;
  std::vector<Schedule> all;
  for (const auto& [name, order] : cuda_on_host::kSchedules)
    all.push_back({name, [order = order] { cuda_on_host::set_order(order, kSeed); }});
  return all;
#endif
}

// The main function of a driver; returns the exit status.
inline int run(const std::vector<Case>& cases, int argc, char** argv) {
  std::set<std::string> chosen(argv + 1, argv + argc);
  const bool all = chosen.empty();
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // after a crash, the last case is known
  int runs = 0, failures = 0;
  for (const Case& one : cases) {
    if (!all && chosen.erase(one.name) == 0) continue;
    std::printf("%s\n", one.name.c_str());
    for (const Schedule& schedule : schedules()) {
      schedule.apply();
      ++runs;
      try {
        one.run();
        check(cudaDeviceSynchronize());
      } catch (const std::runtime_error& error) {
        ++failures;
        std::printf("FAILED %s (%s): %s\n", one.name.c_str(), schedule.name, error.what());
      }
    }
  }
  for (const std::string& name : chosen) std::printf("FAILED: unknown case %s\n", name.c_str());
  std::printf("%d runs, %d failures\n", runs, failures);
  return failures == 0 && chosen.empty() ? 0 : 1;
}

}  // namespace driver
