// Runs kernels on the CPU. Each CUDA thread is a fiber that runs until it waits for its warp or its block;
// the schedule then picks the next thread. The blocks of a grid run one after another.
//
// Lanes of a warp are as independent as on a GPU: only __syncwarp orders their memory accesses. Shuffles and
// votes exchange values without ordering memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>

namespace cuda_on_host {

// A violation of CUDA's rules by a kernel, with block, thread and source line.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Which of the ready threads runs next.
enum class Order {
  kAscending,   // the next higher number, cyclically; blocks ascend
  kDescending,  // the next lower number, cyclically; blocks descend
  kGreedyLow,   // the lowest number; blocks ascend
  kGreedyHigh,  // the highest number; blocks descend
  kRandom,      // a random thread; blocks are shuffled
};

struct Schedule {
  const char* name;
  Order order;
};

constexpr Schedule kSchedules[] = {{"ascending", Order::kAscending},
                                   {"descending", Order::kDescending},
                                   {"greedy low", Order::kGreedyLow},
                                   {"greedy high", Order::kGreedyHigh},
                                   {"random", Order::kRandom}};

// Sets the order of later launches; the default is kAscending. Only kRandom uses the seed.
void set_order(Order order, uint64_t seed);

struct LaunchConfig {
  int64_t blocks;
  int threads;  // per block
  size_t dynamic_shared_bytes;
};

// Calls kernel() as every thread of the grid. Throws Error at the first violation of CUDA's rules, and at the
// end if the checker has findings.
void launch(const LaunchConfig& config, const std::function<void()>& kernel);

// Kernels call the functions below on the fiber of a thread; `location` is the calling line.
using SourceLocation = std::source_location;

// __syncthreads_or: waits for the block and returns whether the predicate holds for any of its threads.
bool block_barrier(bool predicate, SourceLocation location);

enum class WarpOp { kSync, kShuffle, kShuffleUp, kShuffleDown, kShuffleXor, kBallot, kAny, kAll };

// Waits for the lanes in `mask` and returns the result of the CUDA function: the bits of a value for
// shuffles, otherwise the vote. A shuffle's argument is the lane or the distance; a vote's value is 0 or 1.
uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, int argument, int width,
                         SourceLocation location);

// A __shared__ variable, identified by the unique address `owner`, and the dynamic shared memory.
void* shared_variable(const void* owner, size_t bytes, SourceLocation location);
void* dynamic_shared();

}  // namespace cuda_on_host
