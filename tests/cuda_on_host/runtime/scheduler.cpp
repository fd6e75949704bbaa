#include "runtime/scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/asan.h"
#include "runtime/checker.h"
#include "runtime/cuda.h"
#include "runtime/fiber.h"
#include "runtime/messages.h"
#include "runtime/shared_memory.h"
#include "runtime/thread_set.h"

uint3 threadIdx{}, blockIdx{};
dim3 blockDim{}, gridDim{};

namespace cuda_on_host {

Checker* checker = nullptr;

namespace {

// Stack tops differ within a page: with equal offsets, all stacks would compete for a few cache lines.
constexpr size_t kPage = 4096;
constexpr size_t kStack = 32 * kPage;
constexpr size_t kStackStep = 320;

Order order = Order::kAscending;
uint64_t seed = 0;

enum class State { kReady, kAtBarrier, kInWarpOp, kExited };

struct Thread {
  Fiber fiber;
  int number;
  State state = State::kExited;
  SourceLocation location;  // where it waits

  bool predicate;  // passed to __syncthreads_or

  // The warp operation in which it waits, and then its result.
  WarpOp op;
  unsigned mask;
  uint64_t value;
  int argument;
  int width;
  uint64_t result;

  int lane() const { return number % kWarpSize; }
  int warp() const { return number / kWarpSize; }

  std::string describe_wait() const {
    std::ostringstream text;
    if (state == State::kAtBarrier) {
      text << "__syncthreads";
    } else {
      text << op_name(op) << " with mask 0x" << std::hex << mask;
    }
    text << " at " << format_location(location);
    return text.str();
  }
};

// The running block. Blocks run one at a time and reuse the threads' stacks.
class Block {
 public:
  Block();

  void run(const LaunchConfig& config, const std::function<void()>& kernel);

  bool barrier(bool predicate, SourceLocation location);
  uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, int argument, int width,
                           SourceLocation location);
  void* shared_variable(const void* owner, size_t bytes, SourceLocation location);
  void* dynamic_shared() const { return shared_.dynamic(); }

  [[noreturn]] void run_thread();

 private:
  void set_ready(Thread& thread) {
    thread.state = State::kReady;
    ready_.add(thread.number);
  }
  void set_waiting(Thread& thread, State state) {
    thread.state = state;
    ready_.remove(thread.number);
  }

  int next_thread();
  void switch_from(Fiber& fiber, int next);
  void yield_thread();
  [[noreturn]] void abandon_block();

  std::string thread_name(const Thread& thread) const;
  std::string barrier_divergence() const;
  std::string warp_op_mismatch(const Thread& self) const;
  void complete_warp_op(unsigned mask, int warp);
  std::string describe_deadlock() const;

  Thread threads_[kMaxThreads];
  std::byte* stacks_[kMaxThreads];
  Fiber host_;
  SharedMemory shared_;

  const std::function<void()>* kernel_ = nullptr;
  int size_ = 0;     // threads of this block
  int running_ = 0;  // threads that have not returned
  int current_ = 0;
  ThreadSet ready_;
  int at_barrier_ = 0;
  bool any_predicate_ = false;                             // of the threads at the barrier
  bool barrier_result_ = false;                            // of the most recent barrier
  std::array<unsigned, kMaxThreads / kWarpSize> in_op_{};  // per warp: lanes waiting in a warp operation
  std::mt19937_64 random_;
  std::string failure_;
};

Block& block() {
  static Block instance;
  return instance;
}

Block::Block() {
  // A guard page lies below each stack. Unused pages take no memory.
  void* stacks = mmap(nullptr, kMaxThreads * (kStack + kPage), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) throw std::bad_alloc();
  for (int i = 0; i < kMaxThreads; ++i) {
    std::byte* guard = static_cast<std::byte*>(stacks) + i * (kStack + kPage);
    mprotect(guard, kPage, PROT_NONE);
    threads_[i].number = i;
    stacks_[i] = guard + kPage;
  }
}

void Block::run(const LaunchConfig& config, const std::function<void()>& kernel) {
  kernel_ = &kernel;
  size_ = running_ = config.threads;
  at_barrier_ = 0;
  any_predicate_ = false;
  in_op_.fill(0);
  ready_.clear();
  failure_.clear();
  random_.seed(seed + blockIdx.x);
  if (checker != nullptr) checker->on_block(blockIdx.x, size_);
  shared_.begin_block(config.dynamic_shared_bytes);
  for (int i = 0; i < size_; ++i) {
    threads_[i].fiber.prepare(stacks_[i], kStack - i * kStackStep % kPage, [] { block().run_thread(); });
    set_ready(threads_[i]);
  }
  const bool descends = order == Order::kDescending || order == Order::kGreedyHigh;
  current_ = descends ? size_ - 1 : 0;
  switch_from(host_, next_thread());
  if (checker != nullptr) checker->on_thread_switch(Checker::kHost);
  if (failure_.empty() && running_ > 0) failure_ = describe_deadlock();
  if (failure_.empty()) return;
  for (int i = 0; i < size_; ++i) asan_unpoison(stacks_[i], kStack);  // red zones of abandoned frames
  throw Error(failure_);
}

void Block::run_thread() {
  (*kernel_)();
  set_waiting(threads_[current_], State::kExited);
  --running_;
  yield_thread();
  std::abort();  // never resumed
}

int Block::next_thread() {
  switch (order) {
    case Order::kAscending:
      return ready_.next_from(current_);
    case Order::kDescending:
      return ready_.previous_from(current_);
    case Order::kGreedyLow:
      return ready_.next_from(0);
    case Order::kGreedyHigh:
      return ready_.previous_from(size_ - 1);
    case Order::kRandom:
      return ready_.next_from(int(random_() % size_));
  }
  return -1;
}

void Block::switch_from(Fiber& fiber, int next) {
  if (next < 0) return fiber.switch_to(host_);
  current_ = next;
  threadIdx.x = unsigned(next);
  if (checker != nullptr) checker->on_thread_switch(next);
  fiber.switch_to(threads_[next].fiber);
}

// Runs the next ready thread, which may be this one.
void Block::yield_thread() {
  const int next = next_thread();
  if (next != current_) switch_from(threads_[current_].fiber, next);
}

// Ends the block after failure_ is set. The frames of its threads are not unwound: neither kernels nor the
// callers of this function may own memory.
void Block::abandon_block() {
  threads_[current_].fiber.switch_to(host_);
  std::abort();
}

std::string Block::thread_name(const Thread& thread) const {
  return "block " + std::to_string(blockIdx.x) + ", thread " + std::to_string(thread.number);
}

bool Block::barrier(bool predicate, SourceLocation location) {
  Thread& self = threads_[current_];
  self.location = location;
  any_predicate_ |= predicate;
  set_waiting(self, State::kAtBarrier);
  if (++at_barrier_ == size_) {
    failure_ = barrier_divergence();
    if (!failure_.empty()) abandon_block();
    barrier_result_ = any_predicate_;
    any_predicate_ = false;
    at_barrier_ = 0;
    for (int i = 0; i < size_; ++i) set_ready(threads_[i]);
    if (checker != nullptr) checker->on_block_barrier();
  }
  yield_thread();
  // Still the result of this barrier: the next one cannot complete before this thread reaches it.
  return barrier_result_;
}

// Describes threads that wait at different barriers; empty if all wait at the same one.
std::string Block::barrier_divergence() const {
  for (int i = 1; i < size_; ++i) {
    if (!same_location(threads_[i].location, threads_[0].location))
      return "divergent barrier: " + thread_name(threads_[0]) + " waits in " + threads_[0].describe_wait() +
             ", thread " + std::to_string(i) + " in " + threads_[i].describe_wait();
  }
  return "";
}

uint64_t Block::warp_collective(WarpOp op, unsigned mask, uint64_t value, int argument, int width,
                                SourceLocation location) {
  Thread& self = threads_[current_];
  self.op = op;
  self.mask = mask;
  self.value = value;
  self.argument = argument;
  self.width = width;
  self.location = location;
  set_waiting(self, State::kInWarpOp);
  unsigned& in_op = in_op_[self.warp()];
  in_op |= 1u << self.lane();
  if ((mask & 1u << self.lane()) == 0) {
    failure_ = thread_name(self) + " is in " + self.describe_wait() + ", a mask without its own lane " +
               std::to_string(self.lane());
    abandon_block();
  }
  if ((in_op & mask) == mask) {
    failure_ = warp_op_mismatch(self);
    if (!failure_.empty()) abandon_block();
    complete_warp_op(mask, self.warp());
    in_op &= ~mask;
  }
  yield_thread();
  return self.result;
}

// Describes lanes of the mask of `self` that wait in another operation; empty if there are none.
std::string Block::warp_op_mismatch(const Thread& self) const {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((self.mask & 1u << lane) == 0) continue;
    const Thread& other = threads_[self.warp() * kWarpSize + lane];
    const bool agrees = other.op == self.op && other.mask == self.mask && other.width == self.width &&
                        same_location(other.location, self.location);
    if (!agrees)
      return "mismatched warp call: " + thread_name(self) + " is in " + self.describe_wait() + ", thread " +
             std::to_string(other.number) + " in " + other.describe_wait() +
             (other.width == self.width ? "" : " with a different width");
  }
  return "";
}

// Computes the result of each lane in `mask` and makes the lanes ready.
void Block::complete_warp_op(unsigned mask, int warp) {
  Thread* lanes = &threads_[warp * kWarpSize];
  unsigned votes = 0;
  for (int lane = 0; lane < kWarpSize; ++lane)
    if ((mask & 1u << lane) != 0 && lanes[lane].value != 0) votes |= 1u << lane;

  const auto from_lane = [&](int lane) -> uint64_t {
    // The value of a lane outside the mask is undefined.
    if ((mask & 1u << lane) == 0) return uint64_t(kUninitializedFill) * 0x0001000100010001;
    return lanes[lane].value;
  };
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((mask & 1u << lane) == 0) continue;
    Thread& self = lanes[lane];
    const int distance = self.argument & (kWarpSize - 1);  // the hardware uses five bits
    const int first = lane & -self.width, last = first + self.width - 1;
    switch (self.op) {
      case WarpOp::kSync:
        break;
      case WarpOp::kShuffle:
        self.result = from_lane(first + (self.argument & (self.width - 1)));
        break;
      case WarpOp::kShuffleUp:
        self.result = from_lane(lane - distance >= first ? lane - distance : lane);
        break;
      case WarpOp::kShuffleDown:
        self.result = from_lane(lane + distance <= last ? lane + distance : lane);
        break;
      case WarpOp::kShuffleXor:
        self.result = from_lane((lane ^ distance) <= last ? lane ^ distance : lane);
        break;
      case WarpOp::kBallot:
        self.result = votes;
        break;
      case WarpOp::kAny:
        self.result = votes != 0;
        break;
      case WarpOp::kAll:
        self.result = votes == mask;
        break;
    }
    set_ready(self);
  }
  if (checker != nullptr && lanes[std::countr_zero(mask)].op == WarpOp::kSync)
    checker->on_warp_barrier(warp, mask);
}

void* Block::shared_variable(const void* owner, size_t bytes, SourceLocation location) {
  void* memory = shared_.find_or_allocate(owner, bytes);
  if (memory == nullptr) {
    failure_ = thread_name(threads_[current_]) + " at " + format_location(location) +
               ": the block has more than " + std::to_string(SharedMemory::kLimit) +
               " bytes of shared memory";
    abandon_block();
  }
  return memory;
}

// Lists where the threads wait, grouped by location.
std::string Block::describe_deadlock() const {
  std::map<std::string, std::vector<int>> waiting;
  for (int i = 0; i < size_; ++i) {
    const bool exited = threads_[i].state == State::kExited;
    waiting[exited ? "returned from the kernel" : "waits in " + threads_[i].describe_wait()].push_back(i);
  }
  std::string text = "deadlock in block " + std::to_string(blockIdx.x);
  for (const auto& [what, numbers] : waiting) {
    text += text.back() == ')' ? ", thread " : ": thread ";
    text += std::to_string(numbers[0]) + " " + what + " (" + std::to_string(numbers.size());
    text += numbers.size() == 1 ? " thread in all)" : " threads in all)";
  }
  return text;
}

std::vector<int64_t> block_order(int64_t blocks) {
  std::vector<int64_t> numbers(blocks);
  for (int64_t i = 0; i < blocks; ++i) numbers[i] = i;
  if (order == Order::kDescending || order == Order::kGreedyHigh)
    std::reverse(numbers.begin(), numbers.end());
  if (order == Order::kRandom) std::shuffle(numbers.begin(), numbers.end(), std::mt19937_64(seed));
  return numbers;
}

}  // namespace

void set_order(Order new_order, uint64_t new_seed) {
  order = new_order;
  seed = new_seed;
}

void launch(const LaunchConfig& config, const std::function<void()>& kernel) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const auto require = [](bool condition, const char* rule) {
    if (!condition) throw Error(std::string("the launch must have ") + rule);
  };
  require(config.threads > 0 && config.threads <= kMaxThreads && config.threads % kWarpSize == 0,
          "32 to 1024 threads per block, a multiple of 32");
  require(config.dynamic_shared_bytes <= SharedMemory::kLimit, "at most 48 KiB of shared memory per block");
  if (checker != nullptr) checker->on_launch();
  gridDim.x = unsigned(config.blocks);
  blockDim.x = unsigned(config.threads);
  for (const int64_t number : block_order(config.blocks)) {
    blockIdx.x = unsigned(number);
    block().run(config, kernel);
  }
  if (checker == nullptr) return;
  if (const std::string findings = checker->findings(); !findings.empty()) throw Error(findings);
}

bool block_barrier(bool predicate, SourceLocation location) {
  return block().barrier(predicate, location);
}

uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, int argument, int width,
                         SourceLocation location) {
  return block().warp_collective(op, mask, value, argument, width, location);
}

void* shared_variable(const void* owner, size_t bytes, SourceLocation location) {
  return block().shared_variable(owner, bytes, location);
}

void* dynamic_shared() {
  return block().dynamic_shared();
}

}  // namespace cuda_on_host
