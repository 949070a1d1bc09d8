// host.cuh on the emulated machine. Environment variables choose the GPU:
//   BSM_EMULATED_COMPUTE   compute capability, by default 90; 0: no device
//   BSM_EMULATED_SHARED    KiB of shared memory per block, by default 227
//   BSM_EMULATED_BLOCKS    most blocks in a grid, by default 2^31 - 1
//   BSM_EMULATED_CLUSTER   most blocks in a cluster, by default 8
#pragma once

#include <cstdlib>
#include <tuple>

#include "machine.h"

namespace bsm::host {

inline int setting(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
}

inline int current_device(Device& device) {
    device = {0, setting("BSM_EMULATED_COMPUTE", 90),
              setting("BSM_EMULATED_SHARED", 227) * size_t{1024},
              setting("BSM_EMULATED_BLOCKS", 0x7fffffff)};
    return device.compute ? BSM_OK : BSM_NO_DEVICE;
}

template <auto kKernel>
bool fits_cluster(const Device& device, const Grid& grid) {
    return device.compute >= 90 && grid.cluster <= setting("BSM_EMULATED_CLUSTER", kMaxCluster);
}

template <auto kKernel, class... Arguments>
int launch(const Device& device, const Grid& grid, void*, const Arguments&... arguments) {
    if (grid.blocks % grid.cluster || grid.blocks > device.max_blocks ||
        grid.shared_bytes > device.shared_bytes)
        return BSM_CUDA_ERROR;
    const std::tuple<Arguments...> call(arguments...);
    on_host::run(
        {grid.blocks, grid.threads, grid.cluster, grid.shared_bytes},
        [](const void* to) {
            std::apply(kKernel, *static_cast<const std::tuple<Arguments...>*>(to));
        },
        &call);
    return BSM_OK;
}

inline const char* last_cuda_error() { return ""; }

}  // namespace bsm::host
