// The machine under the kernels: a thin layer with two implementations of the same functions.
// nvcc gets PTX; any other compiler gets a faithful emulation on the CPU, tests/cuda_on_host.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include "device_ptx.cuh"
#else
#include "device_on_host.h"
#endif
