// Fibers: several stacks on one operating system thread. A switch costs about as much as a function call.
#pragma once

#include <cstddef>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace cuda_on_host {

class Fiber {
 public:
  // A new fiber represents the program's own stack, so that others can switch back to it.
  Fiber() = default;
  Fiber(const Fiber&) = delete;

  // The next switch to this fiber calls entry(), which must not return.
  void prepare(std::byte* stack, size_t bytes, void (*entry)());

  // Must run on this fiber. Returns when another fiber switches back.
  void switch_to(Fiber& next);

 private:
  static void begin();
  void finish_switch();

#ifdef __x86_64__
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  void (*entry_)() = nullptr;
  // AddressSanitizer must know the current stack.
  const void* stack_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace cuda_on_host
