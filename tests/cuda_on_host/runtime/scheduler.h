// Runs kernels on the CPU. Each CUDA thread is a fiber, and runs until it has to wait for others of its warp
// or its block; which one goes on then is the schedule's choice. The blocks of a grid run one after another.
//
// Lanes of a warp are as independent as on a GPU: nothing but __syncwarp orders them, and shuffles and votes
// exchange values without ordering memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>

namespace cuda_on_host {

// What a kernel does that CUDA does not allow, with block, thread and source line.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Which of the threads that can go on does so.
enum class Order {
  kAscending,   // the next higher number, round and round; blocks ascend
  kDescending,  // the next lower one; blocks descend
  kGreedyLow,   // the lowest; blocks ascend
  kGreedyHigh,  // the highest; blocks descend
  kRandom,      // any; blocks are shuffle
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

// For the launches to come, which are ascending before the first call. The seed is that of kRandom.
void set_order(Order order, uint64_t seed);

struct LaunchConfig {
  int64_t blocks;
  int threads;  // a block
  size_t dynamic_shared_bytes;
};

// Calls kernel() as every thread of the grid. Throws Error at the first one that CUDA does not allow, and at
// the end if the checker found something.
void launch(const LaunchConfig& grid, const std::function<void()>& kernel);

// The calls below are made by kernels, on the fiber of a thread; `location` is the line that the kernel calls
// from.
using SourceLocation = std::source_location;

// __syncthreads: waits for the block, and says whether the predicate holds for any of its threads.
bool block_barrier(bool predicate, SourceLocation location);

enum class WarpOp { kSync, kShuffle, kShuffleUp, kShuffleDown, kShuffleXor, kBallot, kAny, kAll };

// Waits for the lanes in `mask`, and gives what the call of that name gives: bits of a value for shuffles,
// votes otherwise. A shuffle's argument is the lane or the distance; a vote's value is 0 or 1.
uint64_t warp_collective(WarpOp call, unsigned mask, uint64_t value, int argument, int width,
                         SourceLocation location);

// The shared variable that `owner`, an address of its own, stands for; and the dynamic part.
void* shared_variable(const void* owner, size_t bytes, SourceLocation location);
void* dynamic_shared();

}  // namespace cuda_on_host
