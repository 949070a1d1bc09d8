// What the launching code needs of the machine: the device's limits, whether a cluster fits on it,
// and the launch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bsm_scan.h"

namespace bsm::host {

struct Device {
    int number;
    int compute;          // capability: 10 major + minor
    size_t shared_bytes;  // that a block can have
    int64_t max_blocks;   // of a grid
};

struct Grid {
    int64_t blocks;
    int threads;
    int cluster;  // blocks; 1: none
    size_t shared_bytes;
};

constexpr int kMaxCluster = 8;  // blocks, portably

}  // namespace bsm::host

#if defined(__CUDACC__)
#include "host_cuda.cuh"
#else
#include "host_on_host.h"
#endif
