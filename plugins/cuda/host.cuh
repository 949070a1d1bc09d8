// What the launch code needs from CUDA: the device's limits, whether a cluster fits on it, and the
// launch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bsm_scan.h"

namespace bsm::host {

struct Device {
    int number;
    int compute;          // capability: 10 major + minor
    size_t shared_bytes;  // most that a block can have
    int64_t max_blocks;   // in a grid
};

struct Grid {
    int64_t blocks;
    int threads;
    int cluster;  // blocks in a cluster; 1: no clusters
    size_t shared_bytes;
};

constexpr int kMaxCluster = 8;  // blocks; larger clusters are not portable

}  // namespace bsm::host

#if defined(__CUDACC__)
#include "host_cuda.cuh"
#else
#include "host_on_host.h"
#endif
