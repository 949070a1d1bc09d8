// A GPU made of fibers: runs the thread blocks of a kernel on the CPU, every thread a fiber, with
// barriers that wait and exchanges between the lanes of a warp.
//
// This file and machine.cpp know nothing of the kernels; device_on_host.h builds the device's
// instructions from them. machine.cpp is compiled without sanitizers, so that ThreadSanitizer sees
// the kernel's own accesses only: between fibers it takes for granted just what a barrier orders.
#pragma once

#include <cstddef>
#include <cstdint>

namespace on_host {

constexpr int kLanes = 32;

struct Shape {
    int64_t blocks;  // a multiple of `cluster`
    int threads;     // of a block, a multiple of 32
    int cluster;     // blocks that share memory
    size_t shared_bytes;
};

// Runs all blocks, clusters side by side on the CPU's cores.
// Ends the process with a message if threads wait for each other for ever.
void run(const Shape& shape, void (*kernel)(const void*), const void* arguments);

// What follows is for the thread that runs.
int thread_index();
int64_t block_index();
int64_t block_count();
char* shared_memory(int rank);  // of a block of the cluster
int cluster_rank();

void block_barrier();
void cluster_arrive();
void cluster_arrive_relaxed();  // orders no memory
void cluster_wait();

// Gives every lane of the warp a copy of what each lane brought: kLanes * size bytes. Orders no
// other memory.
void exchange(const void* mine, size_t size, void* all);

// Copies that the thread has under way, first come first out.
struct Copy {
    void* shared;
    const void* global;  // null: zeros
};
void later(const Copy& copy);
bool next_copy(Copy& copy);  // false when there is none

// Faults to plant, from the environment; a test that plants none of them sees none:
//   BSM_SKIP_BARRIER=k    threads run through their k-th barrier that orders memory, from 0
//   BSM_SHARED_SHORT=n    blocks get n bytes of shared memory less than they ask for
//   BSM_SKIP_WAITS=1      waiting for copies waits for none
// And one to reach the far end of huge arrays in no time:
//   BSM_FIRST_BLOCK=b     blocks before b do not run

}  // namespace on_host
