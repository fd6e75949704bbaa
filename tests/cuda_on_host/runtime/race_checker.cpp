// Finds data races and reads of uninitialized memory.
//
// With -fsanitize=thread the compiler calls a function at every memory access. This file implements these
// functions with CUDA's rules instead of those of host threads: __syncthreads orders two threads of a block,
// a chain of __syncwarp orders two lanes of a warp, and nothing orders two blocks of a launch. Shuffles and
// votes order nothing. Atomic accesses do not race with each other. A race is found under any schedule in
// which both accesses happen.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/checker.h"
#include "runtime/messages.h"
#include "runtime/thread_set.h"

namespace cuda_on_host {
namespace {

constexpr uintptr_t kWord = 4;
constexpr uintptr_t kPage = 4096;

enum class AccessKind : uint8_t { kRead, kWrite, kAtomic };

// An access to some bytes of a word, with its vector-clock time.
struct Access {
  uint32_t launch;
  uint32_t block;
  uint32_t barrier_epoch;  // number of earlier block barriers
  uint32_t clock;          // the thread's own clock, which advances at each of its __syncwarp
  uint16_t thread;
  uint8_t bytes;  // one bit per byte
  AccessKind kind;
  const void* caller;

  int warp() const { return thread / kWarpSize; }
  int lane() const { return thread % kWarpSize; }
};

struct ShadowWord {
  // One bit per byte.
  uint8_t tracked = 0;
  uint8_t uninitialized = 0;
  // Accesses that a later one may race with.
  std::vector<Access> accesses;
};

struct ShadowPage {
  std::array<ShadowWord, kPage / kWord> words;
};

struct Finding {
  Access access;
  std::optional<Access> earlier;  // the racing access; empty for a read of uninitialized memory
};

const char* verb(AccessKind kind) {
  switch (kind) {
    case AccessKind::kRead:
      return "read";
    case AccessKind::kWrite:
      return "write";
    case AccessKind::kAtomic:
      return "atomic access";
  }
  return "";
}

// The source line of a program address, followed by the lines that it is inlined into.
std::string source_line(const void* caller) {
  Dl_info module{};
  if (dladdr(caller, &module) == 0) return "an unknown line";
  std::ostringstream command;
  // `caller` is the return address, just after the call.
  command << "addr2line -i -e '" << module.dli_fname << "' 0x" << std::hex
          << static_cast<const char*>(caller) - static_cast<const char*>(module.dli_fbase) - 1
          << " 2>/dev/null";
  std::string lines;
  if (FILE* output = popen(command.str().c_str(), "r"); output != nullptr) {
    char line[4096];
    while (std::fgets(line, sizeof(line), output) != nullptr) {
      const std::string path(line, std::string(line).find_first_of(" \n"));
      if (path.starts_with("/usr/"))
        continue;  // the standard library: a launch calls the kernel through std::function
      lines += (lines.empty() ? "" : " in ") + short_path(path);
    }
    pclose(output);
  }
  return lines.empty() ? "an unknown line (addr2line is not installed)" : lines;
}

class RaceChecker : public Checker {
 public:
  void on_launch() override {
    ++launch_;
    findings_.clear();
  }
  void on_block(int64_t block, int threads) override;
  void on_thread_switch(int thread) override { thread_ = thread; }
  void on_block_barrier() override { ++barrier_epoch_; }
  void on_warp_barrier(int warp, unsigned lanes) override;
  void on_alloc(const void* memory, size_t bytes) override;
  void on_free(const void* memory, size_t bytes) override;
  void on_host_write(const void* memory, size_t bytes) override;
  size_t first_uninitialized(const void* memory, size_t bytes) const override;
  void on_atomic(const void* memory, size_t bytes, const void* caller) override {
    access(memory, bytes, AccessKind::kAtomic, caller);
  }
  std::string findings() const override;

  void access(const void* memory, size_t bytes, AccessKind kind, const void* caller);

 private:
  ShadowPage* page_at(uintptr_t address) const;
  bool happens_before(const Access& earlier) const;
  void access_word(ShadowWord& word, const Access& access);
  void add_finding(const Access& access, const std::optional<Access>& earlier);

  // Calls body(word, bytes) for each word on tracked pages; `bytes` has one bit per byte.
  template <class Body>
  void for_each_word(const void* memory, size_t bytes, const Body& body) const {
    const auto begin = reinterpret_cast<uintptr_t>(memory), end = begin + bytes;
    if (begin >= tracked_end_ || end <= tracked_begin_) return;
    for (uintptr_t at = begin; at < end;) {
      const uintptr_t word = at / kWord * kWord, next = std::min(end, word + kWord);
      if (ShadowPage* page = page_at(at); page != nullptr)
        body(page->words[word % kPage / kWord], uint8_t(((1u << (next - word)) - 1) & -(1u << (at - word))));
      at = next;
    }
  }

  std::unordered_map<uintptr_t, std::unique_ptr<ShadowPage>> pages_;
  uintptr_t tracked_begin_ = UINTPTR_MAX, tracked_end_ = 0;
  mutable uintptr_t latest_address_ = UINTPTR_MAX;  // page number of the last lookup
  mutable ShadowPage* latest_page_ = nullptr;

  uint32_t launch_ = 0, block_ = 0, barrier_epoch_ = 0;
  int thread_ = kHost;
  // Vector clocks: per thread and lane of its warp, the clock of that lane up to which all accesses happen
  // before the thread's next access.
  std::vector<std::array<uint32_t, kWarpSize>> clocks_;

  std::map<std::pair<const void*, const void*>, Finding> findings_;  // one per pair of source lines
};

void RaceChecker::on_block(int64_t block, int threads) {
  block_ = uint32_t(block);
  barrier_epoch_ = 0;
  clocks_.assign(threads, {});
  for (int i = 0; i < threads; ++i) clocks_[i][i % kWarpSize] = 1;
}

void RaceChecker::on_warp_barrier(int warp, unsigned lanes) {
  std::array<uint32_t, kWarpSize> joined{};
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((lanes & 1u << lane) == 0) continue;
    for (int i = 0; i < kWarpSize; ++i) joined[i] = std::max(joined[i], clocks_[warp * kWarpSize + lane][i]);
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((lanes & 1u << lane) == 0) continue;
    clocks_[warp * kWarpSize + lane] = joined;
    ++clocks_[warp * kWarpSize + lane][lane];
  }
}

ShadowPage* RaceChecker::page_at(uintptr_t address) const {
  const uintptr_t number = address / kPage;
  if (number != latest_address_) {
    const auto found = pages_.find(number);
    latest_address_ = number;
    latest_page_ = found == pages_.end() ? nullptr : found->second.get();
  }
  return latest_page_;
}

void RaceChecker::on_alloc(const void* memory, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(memory), end = begin + bytes;
  tracked_begin_ = std::min(tracked_begin_, begin);
  tracked_end_ = std::max(tracked_end_, end);
  latest_address_ = UINTPTR_MAX;
  for (uintptr_t number = begin / kPage; number * kPage < end; ++number)
    if (std::unique_ptr<ShadowPage>& page = pages_[number]; page == nullptr)
      page = std::make_unique<ShadowPage>();
  for_each_word(memory, bytes, [](ShadowWord& word, uint8_t bytes_of_word) {
    word.tracked |= bytes_of_word;
    word.uninitialized |= bytes_of_word;
  });
}

void RaceChecker::on_free(const void* memory, size_t bytes) {
  for_each_word(memory, bytes, [](ShadowWord& word, uint8_t) { word = ShadowWord(); });
}

void RaceChecker::on_host_write(const void* memory, size_t bytes) {
  for_each_word(memory, bytes,
                [](ShadowWord& word, uint8_t bytes_of_word) { word.uninitialized &= ~bytes_of_word; });
}

size_t RaceChecker::first_uninitialized(const void* memory, size_t bytes) const {
  for (size_t i = 0; i < bytes; ++i) {
    bool uninitialized = false;
    for_each_word(static_cast<const char*>(memory) + i, 1,
                  [&](ShadowWord& word, uint8_t byte) { uninitialized = (word.uninitialized & byte) != 0; });
    if (uninitialized) return i;
  }
  return bytes;
}

void RaceChecker::access(const void* memory, size_t bytes, AccessKind kind, const void* caller) {
  if (thread_ == kHost) return;
  const uint32_t clock = clocks_[thread_][thread_ % kWarpSize];
  for_each_word(memory, bytes, [&](ShadowWord& word, uint8_t bytes_of_word) {
    const auto tracked = uint8_t(bytes_of_word & word.tracked);
    if (tracked != 0)
      access_word(word, {launch_, block_, barrier_epoch_, clock, uint16_t(thread_), tracked, kind, caller});
  });
}

// Whether `earlier` happens before the next access of the current thread.
bool RaceChecker::happens_before(const Access& earlier) const {
  if (earlier.launch != launch_) return true;
  if (earlier.block != block_) return false;
  if (earlier.thread == thread_ || earlier.barrier_epoch != barrier_epoch_) return true;
  return earlier.warp() == thread_ / kWarpSize && clocks_[thread_][earlier.lane()] >= earlier.clock;
}

void RaceChecker::access_word(ShadowWord& word, const Access& access) {
  if (access.kind != AccessKind::kWrite && (word.uninitialized & access.bytes) != 0)
    add_finding(access, std::nullopt);
  if (access.kind != AccessKind::kRead) word.uninitialized &= ~access.bytes;

  // Unordered accesses of one kind represent all later ones of that kind if they are from a block that has
  // ended or from two warps: a later access that races with any of those also races with one of these.
  bool in_ended_block = false;
  int a_warp = -1, another_warp = -1;
  const auto is_superseded = [&](const Access& earlier) {
    if (earlier.launch != launch_) return true;
    if ((earlier.bytes & access.bytes) == 0) return false;
    const bool same_kind = access.kind == earlier.kind;
    if (happens_before(earlier)) {
      // An access that is unordered with the earlier one will be unordered with this one, which is at least
      // as strong.
      return (earlier.bytes & ~access.bytes) == 0 && (same_kind || access.kind == AccessKind::kWrite);
    }
    if (!same_kind || access.kind == AccessKind::kWrite) add_finding(access, earlier);
    if (same_kind && (access.bytes & ~earlier.bytes) == 0) {
      in_ended_block |= earlier.block != block_;
      (a_warp == -1 || a_warp == earlier.warp() ? a_warp : another_warp) = earlier.warp();
    }
    return false;
  };
  std::erase_if(word.accesses, is_superseded);
  if (in_ended_block || another_warp != -1) return;
  if (a_warp != -1 && a_warp != access.warp()) {
    // The second warp: keep one access per warp. The first warp may have one per lane.
    bool has_one = false;
    std::erase_if(word.accesses, [&](const Access& earlier) {
      const bool is_alike = earlier.kind == access.kind && earlier.bytes == access.bytes &&
                            earlier.block == block_ && !happens_before(earlier);
      return is_alike && std::exchange(has_one, true);
    });
  }
  word.accesses.push_back(access);
}

void RaceChecker::add_finding(const Access& access, const std::optional<Access>& earlier) {
  const void* earlier_caller = earlier ? earlier->caller : nullptr;
  findings_.try_emplace(std::minmax(access.caller, earlier_caller), Finding{access, earlier});
}

std::string RaceChecker::findings() const {
  const auto describe = [](const Access& access) {
    return std::string(verb(access.kind)) + " at " + source_line(access.caller) + " by block " +
           std::to_string(access.block) + ", thread " + std::to_string(access.thread);
  };
  std::string text;
  for (const auto& [callers, finding] : findings_) {
    if (!text.empty()) text += "\n";
    if (finding.earlier) {
      text +=
          "data race: " + describe(*finding.earlier) + ", and " + describe(finding.access) + ", unordered";
    } else {
      text += "uninitialized memory: " + describe(finding.access);
    }
  }
  return text;
}

RaceChecker race_checker;

// The findings are often the cause of a crash.
void print_findings_on_crash(int signal) {
  std::fprintf(stderr, "crashed; findings before the crash:\n%s\n", race_checker.findings().c_str());
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

[[maybe_unused]] const bool registered = [] {
  checker = &race_checker;
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT}) std::signal(signal, print_findings_on_crash);
  return true;
}();

}  // namespace
}  // namespace cuda_on_host

using cuda_on_host::AccessKind;
using cuda_on_host::race_checker;

// The functions that the instrumentation calls from kernels.
#define CALLER __builtin_return_address(0)
#define READ_AND_WRITE(bytes)                                   \
  void __tsan_read##bytes(void* at) {                           \
    race_checker.access(at, bytes, AccessKind::kRead, CALLER);  \
  }                                                             \
  void __tsan_write##bytes(void* at) {                          \
    race_checker.access(at, bytes, AccessKind::kWrite, CALLER); \
  }                                                             \
  void __tsan_unaligned_read##bytes(void* at) {                 \
    race_checker.access(at, bytes, AccessKind::kRead, CALLER);  \
  }                                                             \
  void __tsan_unaligned_write##bytes(void* at) {                \
    race_checker.access(at, bytes, AccessKind::kWrite, CALLER); \
  }

extern "C" {
READ_AND_WRITE(1)
READ_AND_WRITE(2)
READ_AND_WRITE(4)
READ_AND_WRITE(8)
READ_AND_WRITE(16)
void __tsan_read_range(void* at, size_t bytes) {
  race_checker.access(at, bytes, AccessKind::kRead, CALLER);
}
void __tsan_write_range(void* at, size_t bytes) {
  race_checker.access(at, bytes, AccessKind::kWrite, CALLER);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
}
