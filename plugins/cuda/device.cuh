// The layer between the kernels and the hardware, with two implementations of the same functions:
// PTX under nvcc, and a faithful emulation on the CPU (tests/cuda_on_host) under other compilers.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include "device_ptx.cuh"
#else
#include "device_on_host.h"
#endif
