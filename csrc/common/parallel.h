// Work shared among torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>

namespace crnn {

// Calls work(item, worker) for each item in [0, items), in any order and from several threads. `worker`
// numbers the threads from 0, so that each can have scratch memory of its own: at most max_workers(items,
// grain) of them. Items are handed out one by one, since samples differ in length. `grain`: the fewest items
// worth a thread.
inline int64_t max_workers(int64_t items, int64_t grain) {
  const int64_t threads = torch::stable::get_num_threads();
  return std::max<int64_t>(1, std::min(threads, items / std::max<int64_t>(1, grain)));
}

template <class Work>
void parallel_over(int64_t items, int64_t grain, const Work& work) {
  const int64_t workers = max_workers(items, grain);
  if (workers == 1) {
    for (int64_t item = 0; item < items; ++item) work(item, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker)
      for (int64_t item = next++; item < items; item = next++) work(item, worker);
  });
}

}  // namespace crnn
