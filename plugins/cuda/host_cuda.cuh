// host.cuh implemented with the CUDA runtime.
#pragma once

#include <cuda_runtime.h>

#include <atomic>

namespace bsm::host {

// Returns a BsmStatus and keeps CUDA's text for bsm_scan_cuda_error.
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
    device = {number, 10 * major + minor, static_cast<size_t>(shared), blocks};
    return BSM_OK;
}

constexpr int kDevices = 64;  // answers are cached for devices 0 to 63

// Allows a kernel all the shared memory that a block can have, once per device. The limit belongs
// to the kernel, not to a launch, so it is always the same: threads must not lower each other's.
template <auto kKernel>
cudaError_t prepare(const Device& device) {
    static std::atomic<bool> done[kDevices];
    const bool kept = device.number < kDevices;
    if (kept && done[device.number].load(std::memory_order_acquire)) return cudaSuccess;
    const cudaError_t error =
        cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(device.shared_bytes));
    if (kept && error == cudaSuccess) done[device.number].store(true, std::memory_order_release);
    return error;
}

// A launch configuration together with the attribute that it points to.
struct Configuration {
    cudaLaunchConfig_t value = {};
    cudaLaunchAttribute cluster = {};

    Configuration(const Grid& grid, void* stream) {
        cluster.id = cudaLaunchAttributeClusterDimension;
        cluster.val.clusterDim.x = static_cast<unsigned>(grid.cluster);
        cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
        value.gridDim = dim3(static_cast<unsigned>(grid.blocks));
        value.blockDim = dim3(static_cast<unsigned>(grid.threads));
        value.dynamicSmemBytes = grid.shared_bytes;
        value.stream = static_cast<cudaStream_t>(stream);
        value.attrs = &cluster;
        value.numAttrs = grid.cluster > 1;
    }
    Configuration(const Configuration&) = delete;
};

// Whether the code was compiled for GPUs with clusters, not from older PTX, and the GPU, or our
// share of it, has room for one.
template <auto kKernel>
bool ask_cluster(const Device& device, const Grid& grid) {
    cudaFuncAttributes code;
    if (cudaFuncGetAttributes(&code, kKernel) != cudaSuccess || code.ptxVersion < 90) return false;
    if (prepare<kKernel>(device) != cudaSuccess) return false;
    const Configuration configuration(grid, nullptr);
    int clusters = 0;
    return cudaOccupancyMaxActiveClusters(&clusters, kKernel, &configuration.value) ==
               cudaSuccess &&
           clusters > 0;
}

// Whether the blocks of `grid` can run in its clusters. Asked once per device and cluster size.
template <auto kKernel>
bool fits_cluster(const Device& device, const Grid& grid) {
    enum : char { kUnknown, kFits, kFitsNot };
    static std::atomic<char> known[kDevices][kMaxCluster + 1];
    if (device.compute < 90) return false;
    if (device.number >= kDevices) return ask_cluster<kKernel>(device, grid);
    std::atomic<char>& answer = known[device.number][grid.cluster];
    if (answer.load() == kUnknown)
        answer.store(ask_cluster<kKernel>(device, grid) ? kFits : kFitsNot);
    return answer.load() == kFits;
}

template <auto kKernel, class... Arguments>
int launch(const Device& device, const Grid& grid, void* stream, const Arguments&... arguments) {
    if (const cudaError_t error = prepare<kKernel>(device); error != cudaSuccess)
        return status_of(error);
    const Configuration configuration(grid, stream);
    return status_of(cudaLaunchKernelEx(&configuration.value, kKernel, arguments...));
}

}  // namespace bsm::host
