// What the drivers share. A driver runs the launch functions of an operator on a list of cases, and compares
// what comes out with a plain loop on the host. The same files are compiled for the CPU, where every case
// runs under each schedule, and by nvcc for a GPU, where compute-sanitizer can watch.
//
// A driver takes names of cases, and without any runs all of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/gpu.h"

namespace driver {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// A tensor in the device's memory, with as much of torch's interface as kernels' arguments are made from.
template <class T>
class DeviceTensor {
 public:
  // Contiguous, and written by nobody: the place for results.
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

  // `storage` holds the elements by these strides, from element number `offset` on.
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

  // All that was allocated.
  std::vector<T> on_host() const {
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

// Throws unless both hold the same numbers up to `tolerance`, relative to those above 1. NaN equals NaN.
template <class T, class Expected>
void expect(const char* name, const DeviceTensor<T>& tensor, const std::vector<Expected>& expected,
            double tolerance = 0) {
  std::vector<T> values;
  try {
    values = tensor.on_host();
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(std::string(name) + ": " + error.what());
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const double is = double(values[i]), should_be = double(expected[i]);
    const bool equal = is == should_be || (std::isnan(is) && std::isnan(should_be)) ||
                       std::abs(is - should_be) <= tolerance * std::fmax(1, std::abs(should_be));
    if (equal) continue;
    std::ostringstream message;
    message.precision(17);
    message << name << "[" << i << "] is " << is << " and should be " << should_be;
    throw std::runtime_error(message.str());
  }
}

struct Case {
  std::string name;
  std::function<void()> run;  // throws if something is wrong
};

struct Schedule {
  const char* name;
  std::function<void()> choose;
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

// The main function of a driver: its exit status.
inline int run(const std::vector<Case>& cases, int arguments, char** argument) {
  std::set<std::string> chosen(argument + 1, argument + arguments);
  const bool all = chosen.empty();
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // a crash must not take away what it happened in
  int runs = 0, failures = 0;
  for (const Case& one : cases) {
    if (!all && chosen.erase(one.name) == 0) continue;
    std::printf("%s\n", one.name.c_str());
    for (const Schedule& schedule : schedules()) {
      schedule.choose();
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
  for (const std::string& name : chosen) std::printf("FAILED: there is no case %s\n", name.c_str());
  std::printf("%d runs, %d failures\n", runs, failures);
  return failures == 0 && chosen.empty() ? 0 : 1;
}

}  // namespace driver
