#include "runtime/fiber.h"

#include <cstdint>

#include "runtime/asan.h"

#ifdef __x86_64__
// Pushes the callee-saved registers, stores the stack pointer in *from, and resumes `to` after the switch
// that suspended it.
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

// The fibers of the most recent switch.
Fiber* previous = nullptr;
Fiber* current = nullptr;

}  // namespace

void Fiber::prepare(std::byte* stack, size_t bytes, void (*entry)()) {
  entry_ = entry;
  stack_ = stack;
  bytes_ = bytes;
  fake_stack_ = nullptr;
#ifdef __x86_64__
  // The frame that a switch leaves on the stack: six registers and a return address. Above it is the return
  // address of begin(), which never returns; its position aligns the stack as a call does.
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
  previous = this;
  current = &next;
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
  current->finish_switch();
  current->entry_();
}

void Fiber::finish_switch() {
  // This also fills in the stack bounds of the program's own fiber, which are unknown before.
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(fake_stack_, &previous->stack_, &previous->bytes_);
}

}  // namespace cuda_on_host
