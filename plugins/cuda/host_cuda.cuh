// host.cuh with the CUDA runtime.
#pragma once

#include <cuda_runtime.h>

namespace bsm::host {

// A BsmStatus; keeps CUDA's text for bsm_scan_cuda_error.
int status_of(cudaError_t error);
const char* last_cuda_error();

inline int current_device(Device& device) {
    int number, major, minor, shared, blocks;
    cudaError_t error = cudaGetDevice(&number);
    const auto ask = [&](int& value, cudaDeviceAttr attribute) {
        if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, attribute, number);
    };
    ask(major, cudaDevAttrComputeCapabilityMajor);
    ask(minor, cudaDevAttrComputeCapabilityMinor);
    ask(shared, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    ask(blocks, cudaDevAttrMaxGridDimX);
    if (error != cudaSuccess) return status_of(error);
    device = {10 * major + minor, static_cast<size_t>(shared), blocks};
    return BSM_OK;
}

template <class... Arguments>
int launch(void (*kernel)(Arguments...), const Grid& grid, void* stream, Arguments... arguments) {
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(grid.shared_bytes));
    if (error != cudaSuccess) return status_of(error);
    cudaLaunchAttribute cluster;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(grid.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
    config.blockDim = dim3(static_cast<unsigned>(grid.threads));
    config.dynamicSmemBytes = grid.shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &cluster;
    config.numAttrs = grid.cluster > 1;
    return status_of(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace bsm::host
