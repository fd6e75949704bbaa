// The shared memory of the running block: its variables and the dynamic part, separated by red zones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuda_on_host {

// The fill pattern of new memory, repeated every two bytes: NaN as float16, bfloat16, float32 and float64,
// and a large integer.
constexpr uint16_t kUninitializedFill = 0x7ff1;

void fill_uninitialized(void* memory, size_t bytes);

class SharedMemory {
 public:
  // The limit without opting in to more through cudaFuncSetAttribute.
  static constexpr size_t kLimit = 48 * 1024;

  SharedMemory();
  ~SharedMemory();

  // Resets all shared memory and allocates the dynamic part.
  void begin_block(size_t dynamic_bytes);

  // The variable of `owner`, shared by all threads of the block; null if it does not fit.
  void* find_or_allocate(const void* owner, size_t bytes);

  void* dynamic() const { return dynamic_; }

 private:
  struct Variable {
    const void* owner;
    void* memory;
  };

  void* allocate(size_t bytes);

  std::byte* arena_;
  size_t used_ = 0;       // bytes of the arena, with red zones
  size_t allocated_ = 0;  // bytes of the variables, without red zones
  std::vector<Variable> variables_;
  void* dynamic_ = nullptr;
};

}  // namespace cuda_on_host
