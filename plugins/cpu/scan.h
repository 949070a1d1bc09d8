// What the C interface and ONNX Runtime's operator share.
#pragma once

#include <functional>

#include "../include/bsm_scan_cpu.h"

namespace bsm_cpu {

// Calls a worker up to `most` times, side by side where there are threads for it. Workers share
// out the work among themselves, so that one that is called late or never does no harm.
using Parallel = std::function<void(int64_t most, const std::function<void()>& worker)>;

// Checks `scan`, computes it with `parallel`, and returns a BsmCpuStatus.
int run(const BsmCpuScan& scan, const Parallel& parallel);

}  // namespace bsm_cpu
