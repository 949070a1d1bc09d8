#include "machine.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "fiber.h"

namespace on_host {
namespace {

constexpr int kMaxCopies = 64;  // pending at once in a thread
constexpr int kMaxWords = 8;    // in an exchange, per lane

struct Gate {  // opens when `members` have arrived, over and over
    int members = 0;
    int arrived = 0;
    int64_t passed = 0;  // times it opened
    char order[2] = {};  // addresses by which ThreadSanitizer orders memory, used alternately: a
                         // thread late for one opening must not see writes made before the next
};

struct Block;

struct Thread {
    Fiber fiber;
    Block* block = nullptr;
    int index = 0;
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

using Words = volatile uint32_t;  // copied one by one: ThreadSanitizer intercepts memcpy

struct Warp {
    Gate gate;
    uint32_t brought[2][kLanes * kMaxWords];  // alternately: no lane is two exchanges ahead
};

struct Block {
    int64_t index = 0;
    int rank = 0;
    std::unique_ptr<char, decltype(&std::free)> shared{nullptr, &std::free};
    Gate gate;
    std::vector<Warp> warps;
    std::vector<Thread> threads;
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
    Thread* current = nullptr;
    Host host;
};

thread_local Worker* worker = nullptr;

int planted(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
}

void resume(Thread& thread) {
    worker->current = &thread;
    thread.waits_for = nullptr;
    worker->host.resume(thread.fiber);
    worker->current = nullptr;
}

void leave(Thread& thread) { worker->host.leave(thread.fiber, thread.done); }

[[noreturn]] void run_thread() {
    worker->host.arrived();
    Thread& thread = *worker->current;
    acquire(const_cast<Shape*>(worker->shape));
    worker->kernel(worker->arguments);
    release(const_cast<Shape*>(worker->shape));
    thread.done = true;
    leave(thread);
    std::abort();  // never resumed
}

void arrive(Gate& gate) {
    if (++gate.arrived == gate.members) {
        gate.arrived = 0;
        ++gate.passed;
    }
}

void wait(const Gate& gate, int64_t until) {
    Thread& thread = *worker->current;
    if (gate.passed >= until) return;
    thread.waits_for = &gate;
    thread.until = until;
    leave(thread);
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
        const size_t bytes =
            shape.shared_bytes - std::min(shape.shared_bytes, worker->shared_short);
        void* memory = nullptr;
        if (posix_memalign(&memory, 128, bytes)) std::abort();
        block.shared.reset(static_cast<char*>(memory));
        std::memset(block.shared.get(), 0xff, bytes);  // NaN in every type, until written
        block.gate = Gate{shape.threads};
        block.warps = std::vector<Warp>(shape.threads / kLanes);
        for (Warp& warp : block.warps) warp.gate = Gate{kLanes};
        block.threads = std::vector<Thread>(shape.threads);
        for (int i = 0; i < shape.threads; ++i) {
            block.threads[i].block = &block;
            block.threads[i].index = i;
            worker->host.start(block.threads[i].fiber, run_thread);
        }
    }
    release(const_cast<Shape*>(worker->shape));  // what every thread acquires first
}

void run_cluster(int64_t first_block) {
    set_up_cluster(first_block);
    for (bool alive = true, progress = true; alive;) {
        alive = progress = false;
        for (Block& block : worker->cluster.blocks)
            for (Thread& thread : block.threads) {
                if (thread.ready()) {
                    resume(thread);
                    progress = true;
                }
                alive |= !thread.done;
            }
        if (alive && !progress) {
            std::fputs("on_host: deadlock, all threads wait for each other\n", stderr);
            std::abort();
        }
    }
    for (Block& block : worker->cluster.blocks)
        for (Thread& thread : block.threads) worker->host.finish(thread.fiber);
    acquire(const_cast<Shape*>(worker->shape));  // so that memory is freed after its last use
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
        for (int64_t first; (first = next.fetch_add(shape.cluster)) < shape.blocks;)
            run_cluster(first);
        worker = nullptr;
    };
    std::vector<std::thread> others;
    for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
    acquire(const_cast<Shape*>(&shape));
}

int thread_index() { return worker->current->index; }
int64_t block_index() { return worker->current->block->index; }
int64_t block_count() { return worker->shape->blocks; }
int cluster_rank() { return worker->current->block->rank; }
char* shared_memory(int rank) { return worker->cluster.blocks[rank].shared.get(); }

void block_barrier() {
    Thread& thread = *worker->current;
    if (thread.barriers++ == worker->skip_barrier) return;
    Gate& gate = thread.block->gate;
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
    Thread& thread = *worker->current;
    thread.skips_wait = thread.barriers++ == worker->skip_barrier;
    if (thread.skips_wait) return;
    Gate& gate = worker->cluster.gate;
    release(order(gate, gate.passed + 1));
    cluster_arrive_relaxed();
}

void cluster_wait() {
    Thread& thread = *worker->current;
    if (std::exchange(thread.skips_wait, false)) return;
    Gate& gate = worker->cluster.gate;
    const int64_t until = thread.cluster_until;
    wait(gate, until);
    acquire(order(gate, until));
}

void exchange(const void* mine, size_t size, void* all) {
    Thread& thread = *worker->current;
    Warp& warp = thread.block->warps[thread.index / kLanes];
    Words* brought = warp.brought[warp.gate.passed % 2];
    const size_t words = size / sizeof(uint32_t);
    if (words > kMaxWords || words * sizeof(uint32_t) != size) std::abort();
    for (size_t i = 0; i < words; ++i)
        brought[thread.index % kLanes * words + i] = static_cast<const Words*>(mine)[i];
    meet(warp.gate);
    for (size_t i = 0; i < kLanes * words; ++i) static_cast<Words*>(all)[i] = brought[i];
}

void later(const Copy& copy) {
    Thread& thread = *worker->current;
    if (thread.last_copy == kMaxCopies) std::abort();
    thread.copies[thread.last_copy++] = copy;
}

bool next_copy(Copy& copy) {
    Thread& thread = *worker->current;
    if (thread.first_copy == thread.last_copy || worker->skip_waits) {
        thread.first_copy = thread.last_copy = 0;
        return false;
    }
    copy = thread.copies[thread.first_copy++];
    return true;
}

}  // namespace on_host
