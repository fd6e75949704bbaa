// The interface of the race checker, which observes memory accesses in the "race" build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_on_host {

class Checker {
 public:
  virtual ~Checker() = default;

  virtual void on_launch() = 0;
  virtual void on_block(int64_t block, int threads) = 0;
  // Later accesses belong to this thread of the block, or to the host if it is kHost.
  virtual void on_thread_switch(int thread) = 0;
  static constexpr int kHost = -1;

  // All threads of the block, or these lanes of a warp, have reached a barrier.
  virtual void on_block_barrier() = 0;
  virtual void on_warp_barrier(int warp, unsigned lanes) = 0;

  // Only memory announced by on_alloc is tracked. It is uninitialized at first.
  virtual void on_alloc(const void* memory, size_t bytes) = 0;
  virtual void on_free(const void* memory, size_t bytes) = 0;
  virtual void on_host_write(const void* memory, size_t bytes) = 0;
  // The index of the first uninitialized byte, or `bytes` if there is none.
  virtual size_t first_uninitialized(const void* memory, size_t bytes) const = 0;

  // `caller` is an address in the code that makes the access.
  virtual void on_atomic(const void* memory, size_t bytes, const void* caller) = 0;

  // The findings of this launch, one per line; empty if there are none.
  virtual std::string findings() const = 0;
};

// Null in builds without the race checker, which registers itself here.
extern Checker* checker;

}  // namespace cuda_on_host
