#include "runtime/shared_memory.h"

#include <algorithm>
#include <new>

#include "runtime/asan.h"
#include "runtime/checker.h"

namespace cuda_on_host {
namespace {

// Catches an index that is off by up to one warp of doubles.
constexpr size_t kRedZone = 256;
constexpr size_t kAlignment = 128;
constexpr size_t kMaxVariables = 64;
constexpr size_t kArena = SharedMemory::kLimit + (kMaxVariables + 1) * (kRedZone + kAlignment);

}  // namespace

void fill_uninitialized(void* memory, size_t bytes) {
  auto* pairs = static_cast<uint16_t*>(memory);
  std::fill(pairs, pairs + bytes / sizeof(kUninitializedFill), kUninitializedFill);
  if (bytes % sizeof(kUninitializedFill) != 0)
    static_cast<unsigned char*>(memory)[bytes - 1] = kUninitializedFill & 0xff;
}

SharedMemory::SharedMemory()
    : arena_(static_cast<std::byte*>(::operator new(kArena, std::align_val_t(kAlignment)))) {}

SharedMemory::~SharedMemory() {
  asan_unpoison(arena_, kArena);
  ::operator delete(arena_, std::align_val_t(kAlignment));
}

void SharedMemory::begin_block(size_t dynamic_bytes) {
  asan_poison(arena_, kArena);
  if (checker != nullptr) checker->on_free(arena_, used_);
  used_ = allocated_ = 0;
  variables_.clear();
  dynamic_ = allocate(dynamic_bytes);
}

void* SharedMemory::find_or_allocate(const void* owner, size_t bytes) {
  for (const Variable& variable : variables_)
    if (variable.owner == owner) return variable.memory;
  void* memory = allocate(bytes);
  if (memory != nullptr) variables_.push_back({owner, memory});
  return memory;
}

void* SharedMemory::allocate(size_t bytes) {
  if (allocated_ + bytes > kLimit || variables_.size() == kMaxVariables) return nullptr;
  const size_t begin = (used_ + kRedZone + kAlignment - 1) / kAlignment * kAlignment;
  std::byte* memory = arena_ + begin;
  used_ = begin + bytes;
  allocated_ += bytes;
  asan_unpoison(memory, bytes);
  fill_uninitialized(memory, bytes);
  if (checker != nullptr) checker->on_alloc(memory, bytes);
  return memory;
}

}  // namespace cuda_on_host
