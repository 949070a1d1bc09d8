#include "machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

// Present when the program is linked with the sanitizer.
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
#error "the emulation switches stacks in x86-64 assembly: add this processor's in machine.cpp"
#endif
// Keeps the callee-saved registers and the stack of the caller in *from and goes on at `to`.
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
namespace {

constexpr size_t kStack = 1 << 18;  // bytes; only touched pages exist
constexpr int kMaxCopies = 64;      // under way at once, of a thread
constexpr int kMaxWords = 8;        // of an exchange, from a lane
constexpr unsigned kNoSync = 1;     // a switch of fibers orders no memory for ThreadSanitizer

struct Gate {  // opens when `members` have arrived, over and over
    int members = 0;
    int arrived = 0;
    int64_t passed = 0;  // times it opened
    char order[2] = {};  // what ThreadSanitizer orders memory by, in turn: who is late for one
                         // opening must not see what others did on their way to the next
};

struct Block;

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    void* tsan = nullptr;
    void* asan_fake_stack = nullptr;
    Block* block = nullptr;
    int thread = 0;
    bool done = false;
    const Gate* waits_for = nullptr;
    int64_t until = 0;  // `passed` of the gate that lets it go on
    int64_t cluster_until = 0;
    int barriers = 0;  // so far
    bool skips_wait = false;
    Copy copies[kMaxCopies];
    int first_copy = 0, last_copy = 0;

    bool ready() const { return !done && (!waits_for || waits_for->passed >= until); }
};

using Words = volatile uint32_t;  // copied one by one: ThreadSanitizer sees what memcpy does

struct Warp {
    Gate gate;
    uint32_t brought[2][kLanes * kMaxWords];  // exchanges in turn: nobody is two ahead of another
};

struct Block {
    int64_t index = 0;
    int rank = 0;
    std::unique_ptr<char, decltype(&std::free)> shared{nullptr, &std::free};
    Gate gate;
    std::vector<Warp> warps;
    std::vector<Fiber> fibers;
};

struct Cluster {
    Gate gate;
    std::vector<Block> blocks;
};

// ---- a cluster on one core -------------------------------------------------------------------

struct Worker {
    const Shape* shape = nullptr;
    void (*kernel)(const void*) = nullptr;
    const void* arguments = nullptr;
    int skip_barrier = -1;
    size_t shared_short = 0;
    bool skip_waits = false;
    Cluster cluster;
    Fiber* current = nullptr;
    void* own_stack = nullptr;
    void* own_tsan = nullptr;
    const void* own_bottom = nullptr;
    size_t own_size = 0;
    std::vector<char*> stacks;  // free ones
};

thread_local Worker* worker = nullptr;

int planted(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
}

// Everything before a release happens before everything after an acquire of the same place.
void release(void* place) {
    if (__tsan_release) __tsan_release(place);
}
void acquire(void* place) {
    if (__tsan_acquire) __tsan_acquire(place);
}

void resume(Fiber& fiber) {
    worker->current = &fiber;
    fiber.waits_for = nullptr;
    void* fake = nullptr;
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&fake, fiber.stack, kStack);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(fiber.tsan, kNoSync);
    on_host_switch(&worker->own_stack, fiber.stack_pointer);
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
    worker->current = nullptr;
}

void leave(Fiber& fiber) {
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(fiber.done ? nullptr : &fiber.asan_fake_stack,
                                       worker->own_bottom, worker->own_size);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(worker->own_tsan, kNoSync);
    on_host_switch(&fiber.stack_pointer, worker->own_stack);
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(fiber.asan_fake_stack, &worker->own_bottom,
                                        &worker->own_size);
}

[[noreturn]] void fiber_main() {
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(nullptr, &worker->own_bottom, &worker->own_size);
    Fiber& fiber = *worker->current;
    acquire(const_cast<Shape*>(worker->shape));
    worker->kernel(worker->arguments);
    release(const_cast<Shape*>(worker->shape));
    fiber.done = true;
    leave(fiber);
    std::abort();  // nobody resumes it
}

void start(Fiber& fiber) {
    if (worker->stacks.empty()) {
        void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) std::abort();
        worker->stacks.push_back(static_cast<char*>(memory));
    }
    fiber.stack = worker->stacks.back();
    worker->stacks.pop_back();
    void** top = reinterpret_cast<void**>(fiber.stack + kStack) - 2;  // as after a call
    *top = reinterpret_cast<void*>(&fiber_main);
    fiber.stack_pointer = top - 6;  // six registers of any value
    if (__tsan_create_fiber) fiber.tsan = __tsan_create_fiber(0);
}

void arrive(Gate& gate) {
    if (++gate.arrived == gate.members) {
        gate.arrived = 0;
        ++gate.passed;
    }
}

void wait(const Gate& gate, int64_t until) {
    Fiber& fiber = *worker->current;
    if (gate.passed >= until) return;
    fiber.waits_for = &gate;
    fiber.until = until;
    leave(fiber);
}

void meet(Gate& gate) {
    const int64_t until = gate.passed + 1;
    arrive(gate);
    wait(gate, until);
}

char* order(Gate& gate, int64_t until) { return &gate.order[until % 2]; }

void set_up_cluster(int64_t first_block) {
    const Shape& shape = *worker->shape;
    Cluster& cluster = worker->cluster;
    cluster.gate = Gate{shape.cluster * shape.threads};
    cluster.blocks = std::vector<Block>(shape.cluster);
    for (int rank = 0; rank < shape.cluster; ++rank) {
        Block& block = cluster.blocks[rank];
        block.index = first_block + rank;
        block.rank = rank;
        const size_t bytes = shape.shared_bytes - std::min(shape.shared_bytes,
                                                           worker->shared_short);
        void* memory = nullptr;
        if (posix_memalign(&memory, 128, bytes)) std::abort();
        block.shared.reset(static_cast<char*>(memory));
        std::memset(block.shared.get(), 0xff, bytes);  // NaN in every type, until written
        block.gate = Gate{shape.threads};
        block.warps = std::vector<Warp>(shape.threads / kLanes);
        for (Warp& warp : block.warps) warp.gate = Gate{kLanes};
        block.fibers = std::vector<Fiber>(shape.threads);
        for (int thread = 0; thread < shape.threads; ++thread) {
            block.fibers[thread].block = &block;
            block.fibers[thread].thread = thread;
            start(block.fibers[thread]);
        }
    }
    release(const_cast<Shape*>(worker->shape));  // what every fiber acquires first
}

void run_cluster(int64_t first_block) {
    set_up_cluster(first_block);
    for (bool alive = true, progress = true; alive;) {
        alive = progress = false;
        for (Block& block : worker->cluster.blocks)
            for (Fiber& fiber : block.fibers) {
                if (fiber.ready()) {
                    resume(fiber);
                    progress = true;
                }
                alive |= !fiber.done;
            }
        if (alive && !progress) {
            std::fputs("on_host: threads wait for each other for ever\n", stderr);
            std::abort();
        }
    }
    for (Block& block : worker->cluster.blocks)
        for (Fiber& fiber : block.fibers) {
            worker->stacks.push_back(fiber.stack);
            if (__tsan_destroy_fiber) __tsan_destroy_fiber(fiber.tsan);
        }
    acquire(const_cast<Shape*>(worker->shape));  // the threads are done with what is freed next
}

}  // namespace

void run(const Shape& shape, void (*kernel)(const void*), const void* arguments) {
    std::atomic<int64_t> next{planted("BSM_FIRST_BLOCK", 0)};
    release(const_cast<Shape*>(&shape));
    const auto work = [&] {
        Worker state;
        state.shape = &shape;
        state.kernel = kernel;
        state.arguments = arguments;
        state.skip_barrier = planted("BSM_SKIP_BARRIER", -1);
        state.shared_short = planted("BSM_SHARED_SHORT", 0);
        state.skip_waits = planted("BSM_SKIP_WAITS", 0);
        worker = &state;
        if (__tsan_get_current_fiber) state.own_tsan = __tsan_get_current_fiber();
        for (int64_t first; (first = next.fetch_add(shape.cluster)) < shape.blocks;)
            run_cluster(first);
        for (char* stack : state.stacks) munmap(stack, kStack);
        worker = nullptr;
    };
    std::vector<std::thread> threads;
    for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
    acquire(const_cast<Shape*>(&shape));
}

int thread_index() { return worker->current->thread; }
int64_t block_index() { return worker->current->block->index; }
int64_t block_count() { return worker->shape->blocks; }
int cluster_rank() { return worker->current->block->rank; }
char* shared_memory(int rank) { return worker->cluster.blocks[rank].shared.get(); }

void block_barrier() {
    Fiber& fiber = *worker->current;
    if (fiber.barriers++ == worker->skip_barrier) return;
    Gate& gate = fiber.block->gate;
    const int64_t until = gate.passed + 1;
    release(order(gate, until));
    meet(gate);
    acquire(order(gate, until));
}

void cluster_arrive_relaxed() {
    Gate& gate = worker->cluster.gate;
    worker->current->cluster_until = gate.passed + 1;
    arrive(gate);
}

void cluster_arrive() {
    Fiber& fiber = *worker->current;
    fiber.skips_wait = fiber.barriers++ == worker->skip_barrier;
    if (fiber.skips_wait) return;
    Gate& gate = worker->cluster.gate;
    release(order(gate, gate.passed + 1));
    cluster_arrive_relaxed();
}

void cluster_wait() {
    Fiber& fiber = *worker->current;
    if (std::exchange(fiber.skips_wait, false)) return;
    Gate& gate = worker->cluster.gate;
    const int64_t until = fiber.cluster_until;
    wait(gate, until);
    acquire(order(gate, until));
}

void exchange(const void* mine, size_t size, void* all) {
    Fiber& fiber = *worker->current;
    Warp& warp = fiber.block->warps[fiber.thread / kLanes];
    Words* brought = warp.brought[warp.gate.passed % 2];
    const size_t words = size / sizeof(uint32_t);
    if (words > kMaxWords || words * sizeof(uint32_t) != size) std::abort();
    for (size_t i = 0; i < words; ++i)
        brought[fiber.thread % kLanes * words + i] = static_cast<const Words*>(mine)[i];
    meet(warp.gate);
    for (size_t i = 0; i < kLanes * words; ++i) static_cast<Words*>(all)[i] = brought[i];
}

void later(const Copy& copy) {
    Fiber& fiber = *worker->current;
    if (fiber.last_copy == kMaxCopies) std::abort();
    fiber.copies[fiber.last_copy++] = copy;
}

bool next_copy(Copy& copy) {
    Fiber& fiber = *worker->current;
    if (fiber.first_copy == fiber.last_copy || worker->skip_waits) {
        fiber.first_copy = fiber.last_copy = 0;
        return false;
    }
    copy = fiber.copies[fiber.first_copy++];
    return true;
}

}  // namespace on_host
