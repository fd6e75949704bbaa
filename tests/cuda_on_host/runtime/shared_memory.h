// The shared memory of the block that runs: its variables and its dynamic part, each between red zones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuda_on_host {

// Fresh memory holds this in every pair of bytes: NaN as float16, bfloat16, float32 and float64, and a large
// number as an integer.
constexpr uint16_t kPoison = 0x7ff1;

void fill_with_poison(void* memory, size_t bytes);

class SharedMemory {
 public:
  // What a kernel may have without asking the driver for more.
  static constexpr size_t kLimit = 48 * 1024;

  SharedMemory();
  ~SharedMemory();

  // All of it is fresh; the dynamic part has this size.
  void begin_block(size_t dynamic_bytes);

  // The part that belongs to `owner`, the same one for all threads of the block; null if it does not fit.
  void* part_of(const void* owner, size_t bytes);

  void* dynamic() const { return dynamic_; }

 private:
  struct Part {
    const void* owner;
    void* memory;
  };

  void* new_part(size_t bytes);

  std::byte* arena_;
  size_t used_ = 0;   // bytes of the arena, red zones included
  size_t taken_ = 0;  // bytes of the parts alone
  std::vector<Part> parts_;
  void* dynamic_ = nullptr;
};

}  // namespace cuda_on_host
