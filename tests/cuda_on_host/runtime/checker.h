// Whoever watches the accesses to memory while kernels run: the race checker, in the build that has it.
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
  // Accesses from now on are those of this thread of the block; of the host's own code if it is kHost.
  virtual void on_thread_switch(int thread) = 0;
  static constexpr int kHost = -1;

  // All threads of the block have met; or these lanes of a warp have.
  virtual void on_block_barrier() = 0;
  virtual void on_warp_barrier(int warp, unsigned lanes) = 0;

  // Memory for kernels, which nobody has written yet. No other memory is watched.
  virtual void on_alloc(const void* memory, size_t bytes) = 0;
  virtual void on_free(const void* memory, size_t bytes) = 0;
  virtual void on_host_write(const void* memory, size_t bytes) = 0;
  // The first byte that is still unwritten, or `bytes` if none is.
  virtual size_t first_uninitialized(const void* memory, size_t bytes) const = 0;

  // By the code that `caller` is an address in.
  virtual void on_atomic(const void* memory, size_t bytes, const void* caller) = 0;

  // What was found in this launch, a line each; empty if nothing was.
  virtual std::string findings() const = 0;
};

// None in builds without the race checker, which enters itself here.
extern Checker* checker;

}  // namespace cuda_on_host
