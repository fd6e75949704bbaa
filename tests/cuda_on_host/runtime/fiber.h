// Fibers: several stacks on one thread of the operating system, and a switch between them that costs no more
// than a call.
#pragma once

#include <cstddef>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace cuda_on_host {

class Fiber {
 public:
  // As it is constructed, it stands for the stack that the program came with: a location to switch back to.
  Fiber() = default;
  Fiber(const Fiber&) = delete;

  // The next switch to it calls entry(), which must not return.
  void prepare(std::byte* stack, size_t bytes, void (*entry)());

  // Called on this fiber; returns when something switches back to it.
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
  // For AddressSanitizer, which has to know on which stack the program is.
  const void* stack_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace cuda_on_host
