#include "runtime/scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
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
#include "runtime/shared_memory.h"

uint3 threadIdx{}, blockIdx{};
dim3 blockDim{}, gridDim{};

namespace cuda_on_host {

Checker* checker = nullptr;

namespace {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;  // a block

// Equal addresses within a page would make all stacks share a few lines of the cache.
constexpr size_t kPage = 4096;
constexpr size_t kStack = 32 * kPage;
constexpr size_t kStackStep = 320;

Order order = Order::kAscending;
uint64_t seed = 0;

std::string shown(const Place& place) {
  // Folder and name: operators have files of equal names.
  const std::string path = place.file_name();
  const size_t name = path.rfind('/');
  const size_t folder = name == std::string::npos || name == 0 ? name : path.rfind('/', name - 1);
  return path.substr(folder == std::string::npos ? 0 : folder + 1) + ":" + std::to_string(place.line());
}

bool same(const Place& a, const Place& b) {
  const bool same_file = a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0;
  return same_file && a.line() == b.line() && a.column() == b.column();
}

const char* name_of(WarpCall call) {
  switch (call) {
    case WarpCall::kSync:
      return "__syncwarp";
    case WarpCall::kShuffle:
      return "__shfl_sync";
    case WarpCall::kShuffleUp:
      return "__shfl_up_sync";
    case WarpCall::kShuffleDown:
      return "__shfl_down_sync";
    case WarpCall::kShuffleXor:
      return "__shfl_xor_sync";
    case WarpCall::kBallot:
      return "__ballot_sync";
    case WarpCall::kAny:
      return "__any_sync";
    case WarpCall::kAll:
      return "__all_sync";
  }
  return "";
}

enum class State { kReady, kAtBarrier, kInWarpCall, kExited };

struct Thread {
  Fiber fiber;
  int number;
  State state = State::kExited;
  Place place;  // where it waits

  bool predicate;  // of the barrier at which it waits

  // The call in which it waits for lanes, and then what the call gives.
  WarpCall call;
  unsigned mask;
  uint64_t value;
  int argument;
  int width;
  uint64_t result;

  int lane() const { return number % kWarp; }
  int warp() const { return number / kWarp; }

  std::string waits_in() const {
    std::ostringstream text;
    if (state == State::kAtBarrier) {
      text << "__syncthreads";
    } else {
      text << name_of(call) << " with mask 0x" << std::hex << mask;
    }
    text << " at " << shown(place);
    return text.str();
  }
};

// A set of numbers below kMostThreads.
class NumberSet {
 public:
  void add(int number) { words_[number / 64] |= uint64_t(1) << number % 64; }
  void remove(int number) { words_[number / 64] &= ~(uint64_t(1) << number % 64); }
  void clear() { words_.fill(0); }

  // The first one from `start` upwards, or else from 0; -1 if there is none.
  int at_or_above(int start) const {
    int word = start / 64;
    uint64_t candidates = words_[word] & (~uint64_t(0) << start % 64);
    for (int i = 0; candidates == 0 && i < kWords; ++i) {
      word = (word + 1) % kWords;
      candidates = words_[word];
    }
    return candidates == 0 ? -1 : word * 64 + std::countr_zero(candidates);
  }

  // The first one from `start` downwards, or else from the top; -1 if there is none.
  int at_or_below(int start) const {
    int word = start / 64;
    uint64_t candidates = words_[word] & (~uint64_t(0) >> (63 - start % 64));
    for (int i = 0; candidates == 0 && i < kWords; ++i) {
      word = (word + kWords - 1) % kWords;
      candidates = words_[word];
    }
    return candidates == 0 ? -1 : word * 64 + 63 - std::countl_zero(candidates);
  }

 private:
  static constexpr int kWords = kMostThreads / 64;
  std::array<uint64_t, kWords> words_{};
};

// The block that runs. There is one at a time, and its threads' stacks serve all that follow it.
class Block {
 public:
  Block();

  void run(const Grid& grid, const std::function<void()>& kernel);

  bool meet(bool predicate, Place place);
  uint64_t meet_lanes(WarpCall call, unsigned mask, uint64_t value, int argument, int width, Place place);
  void* shared_variable(const void* owner, size_t bytes, Place place);
  void* dynamic_shared() const { return shared_.dynamic(); }

  [[noreturn]] void run_thread();

 private:
  void make_ready(Thread& thread) {
    thread.state = State::kReady;
    ready_.add(thread.number);
  }
  void stop_ready(Thread& thread, State state) {
    thread.state = state;
    ready_.remove(thread.number);
  }

  int choose();
  void switch_from(Fiber& fiber, int next);
  void go_on_elsewhere();
  [[noreturn]] void give_up();

  std::string name_of_thread(const Thread& thread) const;
  std::string disagreement() const;
  std::string disagreement_of_lanes(const Thread& self) const;
  void release_lanes(unsigned mask, int warp);
  std::string deadlock() const;

  Thread threads_[kMostThreads];
  std::byte* stacks_[kMostThreads];
  Fiber host_;
  SharedMemory shared_;

  const std::function<void()>* kernel_ = nullptr;
  int size_ = 0;     // threads of this block
  int running_ = 0;  // those that have not returned
  int current_ = 0;
  NumberSet ready_;
  int at_barrier_ = 0;
  bool any_predicate_ = false;                            // of those at the barrier
  bool barrier_result_ = false;                           // of the latest one
  std::array<unsigned, kMostThreads / kWarp> in_call_{};  // for each warp: the lanes in a warp call
  std::mt19937_64 random_;
  std::string failure_;
};

Block& block() {
  static Block instance;
  return instance;
}

Block::Block() {
  // Below each stack is a page that must not be touched. Of the rest, what is never used takes no memory.
  void* stacks = mmap(nullptr, kMostThreads * (kStack + kPage), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) throw std::bad_alloc();
  for (int i = 0; i < kMostThreads; ++i) {
    std::byte* guard = static_cast<std::byte*>(stacks) + i * (kStack + kPage);
    mprotect(guard, kPage, PROT_NONE);
    threads_[i].number = i;
    stacks_[i] = guard + kPage;
  }
}

void Block::run(const Grid& grid, const std::function<void()>& kernel) {
  kernel_ = &kernel;
  size_ = running_ = grid.threads;
  at_barrier_ = 0;
  any_predicate_ = false;
  in_call_.fill(0);
  ready_.clear();
  failure_.clear();
  random_.seed(seed + blockIdx.x);
  if (checker != nullptr) checker->block_begins(blockIdx.x, size_);
  shared_.begin_block(grid.dynamic_shared_bytes);
  for (int i = 0; i < size_; ++i) {
    threads_[i].fiber.prepare(stacks_[i], kStack - i * kStackStep % kPage, [] { block().run_thread(); });
    make_ready(threads_[i]);
  }
  const bool descends = order == Order::kDescending || order == Order::kGreedyHigh;
  current_ = descends ? size_ - 1 : 0;
  switch_from(host_, choose());
  if (checker != nullptr) checker->thread_runs(Checker::kHost);
  if (failure_.empty() && running_ > 0) failure_ = deadlock();
  if (failure_.empty()) return;
  for (int i = 0; i < size_; ++i) allow_access(stacks_[i], kStack);  // red zones of abandoned frames
  throw Error(failure_);
}

void Block::run_thread() {
  (*kernel_)();
  stop_ready(threads_[current_], State::kExited);
  --running_;
  go_on_elsewhere();
  std::abort();  // nobody switches back to it
}

int Block::choose() {
  switch (order) {
    case Order::kAscending:
      return ready_.at_or_above(current_);
    case Order::kDescending:
      return ready_.at_or_below(current_);
    case Order::kGreedyLow:
      return ready_.at_or_above(0);
    case Order::kGreedyHigh:
      return ready_.at_or_below(size_ - 1);
    case Order::kRandom:
      return ready_.at_or_above(int(random_() % size_));
  }
  return -1;
}

void Block::switch_from(Fiber& fiber, int next) {
  if (next < 0) return fiber.switch_to(host_);
  current_ = next;
  threadIdx.x = unsigned(next);
  if (checker != nullptr) checker->thread_runs(next);
  fiber.switch_to(threads_[next].fiber);
}

// Lets another thread run, or this one if it is ready and chosen.
void Block::go_on_elsewhere() {
  const int next = choose();
  if (next != current_) switch_from(threads_[current_].fiber, next);
}

// Ends the block, whose failure is known. The frames of its threads are abandoned as they are: kernels own no
// memory, and neither must the functions that call this one.
void Block::give_up() {
  threads_[current_].fiber.switch_to(host_);
  std::abort();
}

std::string Block::name_of_thread(const Thread& thread) const {
  return "block " + std::to_string(blockIdx.x) + ", thread " + std::to_string(thread.number);
}

bool Block::meet(bool predicate, Place place) {
  Thread& self = threads_[current_];
  self.place = place;
  any_predicate_ |= predicate;
  stop_ready(self, State::kAtBarrier);
  if (++at_barrier_ == size_) {
    failure_ = disagreement();
    if (!failure_.empty()) give_up();
    barrier_result_ = any_predicate_;
    any_predicate_ = false;
    at_barrier_ = 0;
    for (int i = 0; i < size_; ++i) make_ready(threads_[i]);
    if (checker != nullptr) checker->block_meets();
  }
  go_on_elsewhere();
  // Still that of this barrier: no other one ends before this thread has come to it.
  return barrier_result_;
}

// Threads that wait at different barriers, while all wait at one; empty if there are none.
std::string Block::disagreement() const {
  for (int i = 1; i < size_; ++i) {
    if (!same(threads_[i].place, threads_[0].place))
      return "divergent barrier: " + name_of_thread(threads_[0]) + " waits in " + threads_[0].waits_in() +
             ", thread " + std::to_string(i) + " in " + threads_[i].waits_in();
  }
  return "";
}

uint64_t Block::meet_lanes(WarpCall call, unsigned mask, uint64_t value, int argument, int width,
                           Place place) {
  Thread& self = threads_[current_];
  self.call = call;
  self.mask = mask;
  self.value = value;
  self.argument = argument;
  self.width = width;
  self.place = place;
  stop_ready(self, State::kInWarpCall);
  unsigned& in_call = in_call_[self.warp()];
  in_call |= 1u << self.lane();
  if ((mask & 1u << self.lane()) == 0) {
    failure_ = name_of_thread(self) + " is in " + self.waits_in() + ", a mask without its own lane " +
               std::to_string(self.lane());
    give_up();
  }
  if ((in_call & mask) == mask) {
    failure_ = disagreement_of_lanes(self);
    if (!failure_.empty()) give_up();
    release_lanes(mask, self.warp());
    in_call &= ~mask;
  }
  go_on_elsewhere();
  return self.result;
}

// Lanes of its mask that wait, but for something else than `self` does; empty if there are none.
std::string Block::disagreement_of_lanes(const Thread& self) const {
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((self.mask & 1u << lane) == 0) continue;
    const Thread& other = threads_[self.warp() * kWarp + lane];
    const bool agrees = other.call == self.call && other.mask == self.mask && other.width == self.width &&
                        same(other.place, self.place);
    if (!agrees)
      return "mismatched warp call: " + name_of_thread(self) + " is in " + self.waits_in() + ", thread " +
             std::to_string(other.number) + " in " + other.waits_in() +
             (other.width == self.width ? "" : " with another width");
  }
  return "";
}

// All lanes in `mask` are in the same call: gives each its result.
void Block::release_lanes(unsigned mask, int warp) {
  Thread* lanes = &threads_[warp * kWarp];
  unsigned votes = 0;
  for (int lane = 0; lane < kWarp; ++lane)
    if ((mask & 1u << lane) != 0 && lanes[lane].value != 0) votes |= 1u << lane;

  const auto from_lane = [&](int lane) -> uint64_t {
    // What a lane outside of the mask holds is undefined.
    if ((mask & 1u << lane) == 0) return uint64_t(kPoison) * 0x0001000100010001;
    return lanes[lane].value;
  };
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((mask & 1u << lane) == 0) continue;
    Thread& self = lanes[lane];
    const int distance = self.argument & (kWarp - 1);  // the hardware looks at five bits
    const int first = lane & -self.width, last = first + self.width - 1;
    switch (self.call) {
      case WarpCall::kSync:
        break;
      case WarpCall::kShuffle:
        self.result = from_lane(first + (self.argument & (self.width - 1)));
        break;
      case WarpCall::kShuffleUp:
        self.result = from_lane(lane - distance >= first ? lane - distance : lane);
        break;
      case WarpCall::kShuffleDown:
        self.result = from_lane(lane + distance <= last ? lane + distance : lane);
        break;
      case WarpCall::kShuffleXor:
        self.result = from_lane((lane ^ distance) <= last ? lane ^ distance : lane);
        break;
      case WarpCall::kBallot:
        self.result = votes;
        break;
      case WarpCall::kAny:
        self.result = votes != 0;
        break;
      case WarpCall::kAll:
        self.result = votes == mask;
        break;
    }
    make_ready(self);
  }
  if (checker != nullptr && lanes[std::countr_zero(mask)].call == WarpCall::kSync)
    checker->lanes_meet(warp, mask);
}

void* Block::shared_variable(const void* owner, size_t bytes, Place place) {
  void* memory = shared_.part_of(owner, bytes);
  if (memory == nullptr) {
    failure_ = name_of_thread(threads_[current_]) + " at " + shown(place) + ": the block has more than " +
               std::to_string(SharedMemory::kLimit) + " bytes of shared memory";
    give_up();
  }
  return memory;
}

// Which threads wait for what, those that wait alike together.
std::string Block::deadlock() const {
  std::map<std::string, std::vector<int>> waiting;
  for (int i = 0; i < size_; ++i) {
    const bool exited = threads_[i].state == State::kExited;
    waiting[exited ? "returned from the kernel" : "waits in " + threads_[i].waits_in()].push_back(i);
  }
  std::string text = "deadlock in block " + std::to_string(blockIdx.x);
  for (const auto& [what, numbers] : waiting) {
    text += text.back() == ')' ? ", thread " : ": thread ";
    text += std::to_string(numbers[0]) + " " + what;
    text +=
        " (" + std::to_string(numbers.size()) + (numbers.size() == 1 ? " thread" : " threads") + " in all)";
  }
  return text;
}

std::vector<int64_t> order_of_blocks(int64_t blocks) {
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

void run(const Grid& grid, const std::function<void()>& kernel) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const auto require = [](bool condition, const char* rule) {
    if (!condition) throw Error(std::string("the launch must have ") + rule);
  };
  require(grid.threads > 0 && grid.threads <= kMostThreads && grid.threads % kWarp == 0,
          "32 to 1024 threads a block, a multiple of 32");
  require(grid.dynamic_shared_bytes <= SharedMemory::kLimit, "at most 48 KiB of shared memory a block");
  if (checker != nullptr) checker->launch_begins();
  gridDim.x = unsigned(grid.blocks);
  blockDim.x = unsigned(grid.threads);
  for (const int64_t number : order_of_blocks(grid.blocks)) {
    blockIdx.x = unsigned(number);
    block().run(grid, kernel);
  }
  if (checker == nullptr) return;
  if (const std::string findings = checker->findings(); !findings.empty()) throw Error(findings);
}

bool meet_block(bool predicate, Place place) {
  return block().meet(predicate, place);
}

uint64_t meet_lanes(WarpCall call, unsigned mask, uint64_t value, int argument, int width, Place place) {
  return block().meet_lanes(call, mask, value, argument, width, place);
}

void* shared_variable(const void* owner, size_t bytes, Place place) {
  return block().shared_variable(owner, bytes, place);
}

void* dynamic_shared() {
  return block().dynamic_shared();
}

}  // namespace cuda_on_host
