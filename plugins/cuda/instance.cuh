// The kernels compiled for one type and size, as scan.cu calls them.
#pragma once

#include "host.cuh"

namespace bsm {

struct Instance {
    int dtype, headdim, d_state;
    size_t (*workspace)(const BsmScan&);  // bytes
    int (*enqueue)(const BsmScan&, const host::Device&, void* stream);
};

}  // namespace bsm
