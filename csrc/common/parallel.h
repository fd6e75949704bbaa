// Distributes work over torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

namespace crnn {

// The number of threads for `items` work items, if `grain` items are worth one thread.
inline int64_t num_workers(int64_t items, int64_t grain) {
  const int64_t threads = torch::stable::get_num_threads();
  return std::max<int64_t>(1, std::min(threads, items / std::max<int64_t>(1, grain)));
}

// Calls work(item, worker) for each item in [0, items), in any order and from several threads. `worker` is in
// [0, workers) and can index per-thread scratch memory. Items are handed out one by one, because samples
// differ in length. An exception stops the loop; the first exception is rethrown.
template <class Work>
void parallel_for(int64_t items, int64_t workers, const Work& work) {
  if (workers == 1) {
    for (int64_t item = 0; item < items; ++item) work(item, int64_t(0));
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr first_exception;
  std::mutex mutex;
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      try {
        for (int64_t item = next++; item < items; item = next++) work(item, worker);
      } catch (...) {  // torch's parallel_for would lose the message
        next = items;
        const std::lock_guard<std::mutex> lock(mutex);
        if (!first_exception) first_exception = std::current_exception();
      }
    }
  });
  if (first_exception) std::rethrow_exception(first_exception);
}

}  // namespace crnn
