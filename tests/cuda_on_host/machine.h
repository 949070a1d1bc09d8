// A GPU made of fibers: runs the thread blocks of a kernel on the CPU, every thread a fiber, with
// barriers that wait and exchanges between the lanes of a warp.
//
// This file and machine.cpp do not depend on the kernels; device_on_host.h builds the device's
// instructions from them. machine.cpp is compiled without sanitizers, so that ThreadSanitizer sees
// the kernel's own accesses only, ordered between fibers by nothing but barriers.
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

// Runs all blocks, clusters in parallel on the CPU's cores. Ends the process with a message on a
// deadlock.
void run(const Shape& shape, void (*kernel)(const void*), const void* arguments);

// The functions below are for the fiber that runs.
int thread_index();
int64_t block_index();
int64_t block_count();
char* shared_memory(int rank);  // of a block of the cluster
int cluster_rank();

void block_barrier();
void cluster_arrive();
void cluster_arrive_relaxed();  // orders no memory
void cluster_wait();

// Gives every lane of the warp a copy of each lane's value, kLanes * size bytes in all. Orders no
// other memory.
void exchange(const void* mine, size_t size, void* all);

// The thread's pending asynchronous copies, first in, first out.
struct Copy {
    void* shared;
    const void* global;  // null: zeros
};
void later(const Copy& copy);
bool next_copy(Copy& copy);  // false when there is none

// Environment variables that inject faults, so that a test can check that they are found:
//   BSM_SKIP_BARRIER=k    threads run through their k-th barrier that orders memory, from 0
//   BSM_SHARED_SHORT=n    blocks get n bytes of shared memory less than they ask for
//   BSM_SKIP_WAITS=1      wait_copies waits for none
// And one that reaches the far end of huge arrays at once:
//   BSM_FIRST_BLOCK=b     blocks before b do not run

}  // namespace on_host
