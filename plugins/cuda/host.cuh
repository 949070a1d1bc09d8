// What the launching code needs of the machine: the device's limits, and the launch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bsm_scan.h"

namespace bsm::host {

struct Device {
    int compute;          // capability: 10 major + minor
    size_t shared_bytes;  // that a block can have
    int64_t max_blocks;   // of a grid

    bool has_clusters() const { return compute >= 90; }
};

struct Grid {
    int64_t blocks;
    int threads;
    int cluster;  // blocks; 1: none
    size_t shared_bytes;
};

constexpr int kMaxCluster = 8;              // blocks, on every GPU that has clusters

}  // namespace bsm::host

#if defined(__CUDACC__)
#include "host_cuda.cuh"
#else
#include "host_on_host.h"
#endif
