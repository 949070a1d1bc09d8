// The scan as the C interface and ONNX Runtime's operator call it.
#pragma once

#include <functional>

#include "../include/bsm_scan_cpu.h"

namespace bsm_cpu {

// Calls a worker up to `most` times, in parallel as far as there are threads. The calls divide the
// work among themselves, so it does not matter if one starts late or never.
using Parallel = std::function<void(int64_t most, const std::function<void()>& worker)>;

// Checks `scan`, computes it with `parallel`, and returns a BsmCpuStatus.
int run(const BsmCpuScan& scan, const Parallel& parallel);

}  // namespace bsm_cpu
