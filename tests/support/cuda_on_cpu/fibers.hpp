// Fibers: a stack of one's own for each CUDA thread, and the switch between them.
#pragma once
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace fibers {

constexpr size_t STACK = size_t(256) << 10;

struct Fiber {
#if defined(__x86_64__)
  void* top = nullptr;
#else
  ucontext_t context;
#endif
  char* stack = nullptr;
  size_t size = 0;
  void* fake = nullptr;  // of the address sanitizer
};

#if defined(__x86_64__)
// Saves what a call must keep on the old stack, takes it from the new one: the code of a switch is that of a call.
extern "C" void fibers_switch(void** from, void* to);
asm(R"(
.text
.type fibers_switch, @function
fibers_switch:
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
  retq
.size fibers_switch, .-fibers_switch
)");
#endif

inline Fiber* previous = nullptr;

inline void arrive(Fiber& here) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(here.fake, &bottom, &size);
  if (previous && !previous->stack) {  // the thread's own stack, whose bounds only the sanitizer knows
    previous->stack = static_cast<char*>(const_cast<void*>(bottom));
    previous->size = size;
  }
#else
  (void)here;
#endif
}

inline void go(Fiber& from, Fiber& to) {
  previous = &from;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake, to.stack, to.size);
#endif
#if defined(__x86_64__)
  fibers_switch(&from.top, to.top);
#else
  swapcontext(&from.context, &to.context);
#endif
  arrive(from);
}

// The next go() to the fiber calls start(), which never returns.
inline void prepare(Fiber& fiber, void (*start)()) {
  if (!fiber.stack) {
    void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      perror("mmap");
      _Exit(4);
    }
    fiber.stack = static_cast<char*>(memory);
    fiber.size = STACK;
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, STACK);  // start() of the run before never returned
#endif
  fiber.fake = nullptr;
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(fiber.stack + STACK) - 1;  // start() finds the stack as after a call
  *--top = reinterpret_cast<void*>(start);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  fiber.top = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, start, 0);
#endif
}

}  // namespace fibers
