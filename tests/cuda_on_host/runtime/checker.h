// Whoever watches the accesses to memory while kernels run: the race checker, in the build that has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_on_host {

class Checker {
 public:
  virtual ~Checker() = default;

  virtual void launch_begins() = 0;
  virtual void block_begins(int64_t block, int threads) = 0;
  // Accesses from now on are those of this thread of the block; of the host's own code if it is kHost.
  virtual void thread_runs(int thread) = 0;
  static constexpr int kHost = -1;

  // All threads of the block have met; or these lanes of a warp have.
  virtual void block_meets() = 0;
  virtual void lanes_meet(int warp, unsigned lanes) = 0;

  // Memory for kernels, which nobody has written yet. No other memory is watched.
  virtual void memory_appears(const void* memory, size_t bytes) = 0;
  virtual void memory_vanishes(const void* memory, size_t bytes) = 0;
  virtual void host_writes(const void* memory, size_t bytes) = 0;
  // The first byte that is still unwritten, or `bytes` if none is.
  virtual size_t first_unwritten(const void* memory, size_t bytes) const = 0;

  // By the code that `caller` is an address in.
  virtual void atomic_access(const void* memory, size_t bytes, const void* caller) = 0;

  // What was found in this launch, a line each; empty if nothing was.
  virtual std::string findings() const = 0;
};

// None in builds without the race checker, which enters itself here.
extern Checker* checker;

}  // namespace cuda_on_host
