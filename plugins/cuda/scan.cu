// The C interface: checks the arguments and finds the kernels for them.
#include <cmath>
#include <cstring>

#include "instance.cuh"

// X(dtype, headdim, d_state) for each scan_instance.cu in the library.
#ifndef BSM_INSTANCE_LIST
#define BSM_INSTANCES_OF(dtype)                                           \
    X(dtype, 32, 32) X(dtype, 32, 64) X(dtype, 32, 128) X(dtype, 64, 32) \
    X(dtype, 64, 64) X(dtype, 64, 128)
#define BSM_INSTANCE_LIST BSM_INSTANCES_OF(0) BSM_INSTANCES_OF(1) BSM_INSTANCES_OF(2)
#endif

namespace bsm {

#define X(dtype, headdim, d_state) extern const Instance instance_##dtype##_##headdim##_##d_state;
BSM_INSTANCE_LIST
#undef X

namespace {

#define X(dtype, headdim, d_state) &instance_##dtype##_##headdim##_##d_state,
constexpr const Instance* kInstances[] = {BSM_INSTANCE_LIST};
#undef X

const Instance* find_instance(const BsmScan& scan) {
    for (const Instance* instance : kInstances)
        if (instance->dtype == scan.dtype && instance->headdim == scan.headdim &&
            instance->d_state == scan.d_state)
            return instance;
    return nullptr;
}

// Whether the size of the largest array in bytes fits in 64 bits.
bool fits(const BsmScan& scan) {
    const int64_t width = 2 * (2 * int64_t{scan.n_heads} * scan.headdim + 2 * scan.d_state +
                               scan.n_heads);
    return scan.n_sequences <= INT64_MAX / 4 / width / scan.length;
}

int check_sizes(const BsmScan& scan) {
    if (scan.size != sizeof(BsmScan)) return BSM_BAD_STRUCT;
    if (scan.dtype < BSM_FLOAT32 || scan.dtype > BSM_BFLOAT16) return BSM_BAD_DTYPE;
    if (scan.n_heads < 1 || scan.n_heads > 64) return BSM_BAD_N_HEADS;
    if (scan.headdim != 32 && scan.headdim != 64) return BSM_BAD_HEADDIM;
    if (scan.d_state != 32 && scan.d_state != 64 && scan.d_state != 128) return BSM_BAD_D_STATE;
    if (scan.d_conv != 4) return BSM_BAD_D_CONV;
    if (scan.n_sequences < 1 || scan.length < 1 || !fits(scan)) return BSM_BAD_SHAPE;
    if (!std::isfinite(scan.eps) || scan.eps < 0) return BSM_BAD_EPS;
    return BSM_OK;
}

int check_pointers(const BsmScan& scan) {
    const size_t element = scan.dtype == BSM_FLOAT32 ? 4 : 2;
    const struct {
        const void* pointer;
        size_t alignment;
    } arrays[] = {{scan.zxbcdt, element}, {scan.conv_weight, 16}, {scan.conv_bias, 16},
                  {scan.dt_bias, 4},      {scan.A, 4},            {scan.D, 4},
                  {scan.y, 16},           {scan.workspace, 16}};
    for (const auto& array : arrays) {
        if (!array.pointer) return BSM_NULL_POINTER;
        if (reinterpret_cast<uintptr_t>(array.pointer) % array.alignment) return BSM_MISALIGNED;
    }
    return BSM_OK;
}

}  // namespace
}  // namespace bsm

int bsm_scan_abi(void) { return BSM_SCAN_ABI; }

int bsm_scan_workspace(const BsmScan* scan, size_t* bytes) {
    if (!scan || !bytes) return BSM_NULL_POINTER;
    if (const int status = bsm::check_sizes(*scan)) return status;
    const bsm::Instance* instance = bsm::find_instance(*scan);
    if (!instance) return BSM_NO_KERNEL;
    *bytes = instance->workspace(*scan);
    return BSM_OK;
}

int bsm_scan_enqueue(const BsmScan* scan, void* stream) {
    if (!scan) return BSM_NULL_POINTER;
    if (const int status = bsm::check_sizes(*scan)) return status;
    if (const int status = bsm::check_pointers(*scan)) return status;
    const bsm::Instance* instance = bsm::find_instance(*scan);
    if (!instance) return BSM_NO_KERNEL;
    bsm::host::Device device = {};
    if (const int status = bsm::host::current_device(device)) return status;
    if (device.compute < 80) return BSM_OLD_GPU;
    return instance->enqueue(*scan, device, stream);
}

const char* bsm_scan_status_text(int status) {
    static const char* const texts[BSM_STATUS_COUNT] = {
        "no error",
        "the struct's size is not that of this library's version",
        "an array is missing: a pointer is null",
        "dtype must be float32, float16 or bfloat16",
        "there must be at least one sequence and one step, and fewer elements than 64 bits address",
        "n_heads must be 1 to 64",
        "headdim must be 32 or 64",
        "d_state must be 32, 64 or 128",
        "d_conv must be 4",
        "eps must be finite and not negative",
        "an array is not aligned: y, workspace and convolution to 16 bytes, others to an element",
        "the workspace is smaller than bsm_scan_workspace says",
        "the GPU is too old: compute capability 8.0 or newer is needed",
        "the library holds no kernel for this GPU, type and sizes: build it for them",
        "the NVIDIA driver is absent or too old for this library: install a newer one",
        "there is no CUDA device",
        "CUDA reported an error",
    };
    return status >= 0 && status < BSM_STATUS_COUNT ? texts[status] : "unknown status";
}

const char* bsm_scan_cuda_error(void) { return bsm::host::last_cuda_error(); }

#if defined(__CUDACC__)
namespace bsm::host {
namespace {
thread_local const char* last_error = "";
}

const char* last_cuda_error() { return last_error; }

int status_of(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return BSM_OK;
        case cudaErrorNoDevice:
            return BSM_NO_DEVICE;
        case cudaErrorInsufficientDriver:
        case cudaErrorUnsupportedPtxVersion:  // PTX newer than the driver can compile
        case cudaErrorCallRequiresNewerDriver:
        case cudaErrorSystemDriverMismatch:
            return BSM_OLD_DRIVER;
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorInvalidDeviceFunction:
            return BSM_NO_KERNEL;
        default:
            last_error = cudaGetErrorString(error);
            return BSM_CUDA_ERROR;
    }
}

}  // namespace bsm::host
#endif
