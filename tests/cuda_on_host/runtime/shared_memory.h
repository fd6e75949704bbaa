// The shared memory of the block that runs: its variables and its dynamic variable, each between red zones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuda_on_host {

// Fresh memory holds this in every pair of bytes: NaN as float16, bfloat16, float32 and float64, and a large
// number as an integer.
constexpr uint16_t kUninitializedFill = 0x7ff1;

void fill_uninitialized(void* memory, size_t bytes);

class SharedMemory {
 public:
  // What a kernel may have without asking the driver for more.
  static constexpr size_t kLimit = 48 * 1024;

  SharedMemory();
  ~SharedMemory();

  // All of it is fresh; the dynamic variable has this size.
  void begin_block(size_t dynamic_bytes);

  // The variable that belongs to `owner`, the same one for all threads of the block; null if it does not fit.
  void* find_or_allocate(const void* owner, size_t bytes);

  void* dynamic() const { return dynamic_; }

 private:
  struct Variable {
    const void* owner;
    void* memory;
  };

  void* allocate(size_t bytes);

  std::byte* arena_;
  size_t used_ = 0;       // bytes of the arena, red zones included
  size_t allocated_ = 0;  // bytes of the parts alone
  std::vector<Variable> variables_;
  void* dynamic_ = nullptr;
};

}  // namespace cuda_on_host
