// A compiled combination of type and sizes, as scan.cu calls it.
#pragma once

#include "host.cuh"

namespace bsm {

struct Instance {
    int dtype, headdim, d_state;
    size_t (*workspace)(const BsmScan&);  // bytes
    int (*enqueue)(const BsmScan&, const host::Device&, void* stream);
};

}  // namespace bsm
