#include "runtime/shared_memory.h"

#include <algorithm>
#include <new>

#include "runtime/asan.h"
#include "runtime/checker.h"

namespace cuda_on_host {
namespace {

// Wide enough for an index that is off by a warp's worth of doubles.
constexpr size_t kRedZone = 256;
constexpr size_t kAlignment = 128;
constexpr size_t kMostParts = 64;
constexpr size_t kArena = SharedMemory::kLimit + (kMostParts + 1) * (kRedZone + kAlignment);

}  // namespace

void fill_with_poison(void* memory, size_t bytes) {
  auto* pairs = static_cast<uint16_t*>(memory);
  std::fill(pairs, pairs + bytes / sizeof(kPoison), kPoison);
  if (bytes % sizeof(kPoison) != 0) static_cast<unsigned char*>(memory)[bytes - 1] = kPoison & 0xff;
}

SharedMemory::SharedMemory()
    : arena_(static_cast<std::byte*>(::operator new(kArena, std::align_val_t(kAlignment)))) {}

SharedMemory::~SharedMemory() {
  allow_access(arena_, kArena);
  ::operator delete(arena_, std::align_val_t(kAlignment));
}

void SharedMemory::begin_block(size_t dynamic_bytes) {
  forbid_access(arena_, kArena);
  if (checker != nullptr) checker->memory_vanishes(arena_, used_);
  used_ = taken_ = 0;
  parts_.clear();
  dynamic_ = new_part(dynamic_bytes);
}

void* SharedMemory::part_of(const void* owner, size_t bytes) {
  for (const Part& part : parts_)
    if (part.owner == owner) return part.memory;
  void* memory = new_part(bytes);
  if (memory != nullptr) parts_.push_back({owner, memory});
  return memory;
}

void* SharedMemory::new_part(size_t bytes) {
  if (taken_ + bytes > kLimit || parts_.size() == kMostParts) return nullptr;
  const size_t begin = (used_ + kRedZone + kAlignment - 1) / kAlignment * kAlignment;
  std::byte* memory = arena_ + begin;
  used_ = begin + bytes;
  taken_ += bytes;
  allow_access(memory, bytes);
  fill_with_poison(memory, bytes);
  if (checker != nullptr) checker->memory_appears(memory, bytes);
  return memory;
}

}  // namespace cuda_on_host
