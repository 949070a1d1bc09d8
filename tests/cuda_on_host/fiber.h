// A thread of control on its own stack, which runs until it leaves, and the calls that tell the
// sanitizers about it. For machine.cpp only; the sanitizers' functions are weak because a program
// may be built without them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <vector>

extern "C" {
__attribute__((weak)) void* __tsan_get_current_fiber(void);
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** save, const void* bottom,
                                                          size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* save, const void** bottom,
                                                           size_t* size);
}

#if !defined(__x86_64__)
#error "the emulation switches stacks in x86-64 assembly: add this processor's in fiber.h"
#endif
// Saves the caller's callee-saved registers on its stack, stores the stack pointer in *from, and
// continues at `to`.
extern "C" void on_host_switch(void** from, void* to);
asm(R"(
.text
.type on_host_switch, @function
on_host_switch:
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
.size on_host_switch, .-on_host_switch
)");

namespace on_host {

// Everything before a release happens before everything after an acquire of the same place.
inline void release(void* place) {
    if (__tsan_release) __tsan_release(place);
}
inline void acquire(void* place) {
    if (__tsan_acquire) __tsan_acquire(place);
}

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    void* tsan = nullptr;
    void* fake_stack = nullptr;  // AddressSanitizer's
};

// The thread of the CPU that runs fibers, one at a time.
class Host {
public:
    Host() : tsan_(__tsan_get_current_fiber ? __tsan_get_current_fiber() : nullptr) {}
    Host(const Host&) = delete;
    ~Host() {
        for (char* stack : stacks_) munmap(stack, kStack);
    }

    // Gives a fiber a stack, on which `entry` begins when it is first resumed. `entry` calls
    // arrived() first and never returns.
    void start(Fiber& fiber, void (*entry)()) {
        if (stacks_.empty()) {
            void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED) std::abort();
            stacks_.push_back(static_cast<char*>(memory));
        }
        fiber.stack = stacks_.back();
        stacks_.pop_back();
        void** top = reinterpret_cast<void**>(fiber.stack + kStack) - 2;  // as after a call
        *top = reinterpret_cast<void*>(entry);
        fiber.stack_pointer = top - 6;  // six registers of any value
        if (__tsan_create_fiber) fiber.tsan = __tsan_create_fiber(0);
    }

    void arrived() {
        if (__sanitizer_finish_switch_fiber)
            __sanitizer_finish_switch_fiber(nullptr, &bottom_, &size_);
    }

    void resume(Fiber& fiber) {
        void* fake = nullptr;
        if (__sanitizer_start_switch_fiber)
            __sanitizer_start_switch_fiber(&fake, fiber.stack, kStack);
        if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(fiber.tsan, kNoSync);
        on_host_switch(&stack_pointer_, fiber.stack_pointer);
        if (__sanitizer_finish_switch_fiber)
            __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
    }

    // Returns to the host; the fiber continues here when it is resumed, unless it left for good.
    void leave(Fiber& fiber, bool for_good) {
        if (__sanitizer_start_switch_fiber)
            __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.fake_stack, bottom_, size_);
        if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(tsan_, kNoSync);
        on_host_switch(&fiber.stack_pointer, stack_pointer_);
        if (__sanitizer_finish_switch_fiber)
            __sanitizer_finish_switch_fiber(fiber.fake_stack, &bottom_, &size_);
    }

    // Reclaims the stack of a fiber that has left for good.
    void finish(Fiber& fiber) {
        stacks_.push_back(fiber.stack);
        if (__tsan_destroy_fiber) __tsan_destroy_fiber(fiber.tsan);
    }

private:
    static constexpr size_t kStack = 1 << 18;  // bytes; only touched pages exist
    static constexpr unsigned kNoSync = 1;     // to ThreadSanitizer a switch orders no memory

    void* stack_pointer_ = nullptr;
    void* tsan_;
    const void* bottom_ = nullptr;
    size_t size_ = 0;
    std::vector<char*> stacks_;  // free ones
};

}  // namespace on_host
