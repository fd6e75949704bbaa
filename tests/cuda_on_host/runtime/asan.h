// The AddressSanitizer interface as weak symbols: the runtime is compiled once and linked into every build.
#pragma once

#include <cstddef>

extern "C" {
void __asan_poison_memory_region(const volatile void* memory, size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* memory, size_t bytes) __attribute__((weak));
void __sanitizer_start_switch_fiber(void** fake_stack, const void* stack, size_t bytes) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_stack, size_t* old_bytes)
    __attribute__((weak));
}

namespace cuda_on_host {

// AddressSanitizer reports every access to poisoned memory.
inline void asan_poison(void* memory, size_t bytes) {
  if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(memory, bytes);
}

inline void asan_unpoison(void* memory, size_t bytes) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(memory, bytes);
}

}  // namespace cuda_on_host
