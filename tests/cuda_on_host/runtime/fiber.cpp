#include "runtime/fiber.h"

#include <cstdint>

#include "runtime/asan.h"

#ifdef __x86_64__
// Pushes the registers that a call preserves, leaves the stack pointer in *from, and takes up where the
// switch away from `to` left off.
extern "C" void cuda_on_host_switch_stacks(void** from, void* to);
asm(R"(
  .text
  .hidden cuda_on_host_switch_stacks
  .globl cuda_on_host_switch_stacks
  .type cuda_on_host_switch_stacks, @function
cuda_on_host_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cuda_on_host_switch_stacks, . - cuda_on_host_switch_stacks
)");
#endif

namespace cuda_on_host {
namespace {

// The two sides of the latest switch.
Fiber* left = nullptr;
Fiber* entered = nullptr;

}  // namespace

void Fiber::prepare(std::byte* stack, size_t bytes, void (*entry)()) {
  entry_ = entry;
  stack_ = stack;
  bytes_ = bytes;
  fake_stack_ = nullptr;
#ifdef __x86_64__
  // What a switch away would have left on the stack: six registers and the address to return to. Behind them
  // is the return address of begin(), which has none; where it lies aligns the stack as a call does.
  constexpr int kRegisters = 6;
  const auto top = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t(15);
  auto* frame = reinterpret_cast<void**>(top) - 2 - kRegisters;
  for (int i = 0; i < kRegisters; ++i) frame[i] = nullptr;
  frame[kRegisters] = reinterpret_cast<void*>(&Fiber::begin);
  frame[kRegisters + 1] = nullptr;
  stack_pointer_ = frame;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::begin, 0);
#endif
}

void Fiber::switch_to(Fiber& next) {
  left = this;
  entered = &next;
  if (__sanitizer_start_switch_fiber != nullptr)
    __sanitizer_start_switch_fiber(&fake_stack_, next.stack_, next.bytes_);
#ifdef __x86_64__
  cuda_on_host_switch_stacks(&stack_pointer_, next.stack_pointer_);
#else
  swapcontext(&context_, &next.context_);
#endif
  finish_switch();
}

void Fiber::begin() {
  entered->finish_switch();
  entered->entry_();
}

void Fiber::finish_switch() {
  // It knows the bounds of the stack that was left, which nobody told the fiber that the program came with.
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(fake_stack_, &left->stack_, &left->bytes_);
}

}  // namespace cuda_on_host
