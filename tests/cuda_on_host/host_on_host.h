// host.cuh on the emulated machine, which is whatever GPU the environment says:
//   BSM_EMULATED_COMPUTE   compute capability, 90 unless told; 0: no device
//   BSM_EMULATED_SHARED    KiB of shared memory of a block, 227 unless told
//   BSM_EMULATED_BLOCKS    the most of a grid, 2^31 - 1 unless told
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
    device = {setting("BSM_EMULATED_COMPUTE", 90),
              setting("BSM_EMULATED_SHARED", 227) * size_t{1024},
              setting("BSM_EMULATED_BLOCKS", 0x7fffffff)};
    return device.compute ? BSM_OK : BSM_NO_DEVICE;
}

template <class... Arguments>
int launch(void (*kernel)(Arguments...), const Grid& grid, void*, Arguments... arguments) {
    const struct Call {
        void (*kernel)(Arguments...);
        std::tuple<Arguments...> arguments;
    } call{kernel, {arguments...}};
    if (grid.blocks % grid.cluster || grid.blocks > 0x7fffffff) return BSM_CUDA_ERROR;
    on_host::run({grid.blocks, grid.threads, grid.cluster, grid.shared_bytes},
                 [](const void* to) {
                     const auto& call = *static_cast<const Call*>(to);
                     std::apply(call.kernel, call.arguments);
                 },
                 &call);
    return BSM_OK;
}

inline const char* last_cuda_error() { return ""; }

}  // namespace bsm::host
