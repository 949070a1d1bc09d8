// The C interface: checks, the choice of instructions, and threads over sequences and directions.
#include "scan.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "problem.h"

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

namespace bsm_cpu {

namespace portable {
extern const Kernel kKernel;
}
#ifdef BSM_HAS_X86
namespace avx2 {
extern const Kernel kKernel;
}
namespace avx512 {
extern const Kernel kKernel;
}
#endif

namespace {

constexpr int64_t kMostElements = INT64_MAX / 64;  // floats in an array, so no offset overflows
constexpr float kLog2e = 1.44269504088896341f;
constexpr size_t kAlignment = 64;

const Kernel* find(int isa) {
#ifdef BSM_HAS_X86
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f");
    if (isa == BSM_CPU_AVX512 || (isa == BSM_CPU_BEST && has_avx512)) {
        return has_avx512 ? &avx512::kKernel : nullptr;
    }
    if (isa == BSM_CPU_AVX2 || (isa == BSM_CPU_BEST && has_avx2)) {
        return has_avx2 ? &avx2::kKernel : nullptr;
    }
#endif
    return isa == BSM_CPU_BEST || isa == BSM_CPU_PORTABLE ? &portable::kKernel : nullptr;
}

bool fits(const BsmCpuScan& s) {
    if (s.n_sequences < 1 || s.length < 1 || s.n_heads < 1 || s.headdim < 1 || s.d_state < 1 ||
        s.d_conv < 1) {
        return false;
    }
    const int64_t inner = int64_t(s.n_heads) * s.headdim;
    int64_t elements = 2 * (2 * inner + 2 * int64_t(s.d_state) + s.n_heads);
    if (inner > INT32_MAX / 8 || elements > INT32_MAX) return false;
    return !__builtin_mul_overflow(elements, s.n_sequences, &elements) &&
           !__builtin_mul_overflow(elements, s.length, &elements) && elements < kMostElements;
}

int check(const BsmCpuScan& s) {
    if (s.size != sizeof(BsmCpuScan)) return BSM_CPU_BAD_STRUCT;
    for (const void* array :
         {static_cast<const void*>(s.zxbcdt), static_cast<const void*>(s.conv_weight),
          static_cast<const void*>(s.conv_bias), static_cast<const void*>(s.dt_bias),
          static_cast<const void*>(s.A), static_cast<const void*>(s.D),
          static_cast<const void*>(s.y)}) {
        if (!array) return BSM_CPU_NULL_POINTER;
    }
    if (!fits(s)) return BSM_CPU_BAD_SIZES;
    if (!(s.eps >= 0) || std::isinf(s.eps)) return BSM_CPU_BAD_EPS;
    return find(s.isa) ? BSM_CPU_OK : BSM_CPU_BAD_ISA;
}

// Weights in the layout that the kernels read.
struct Prepared {
    explicit Prepared(const BsmCpuScan& s) {
        const int64_t channels = int64_t(s.n_heads) * s.headdim + 2 * int64_t(s.d_state);
        taps.resize(2 * channels * s.d_conv);
        for (int64_t d = 0; d < 2; ++d) {
            for (int64_t c = 0; c < channels; ++c) {
                for (int64_t k = 0; k < s.d_conv; ++k) {
                    taps[(d * s.d_conv + k) * channels + c] =
                        s.conv_weight[(d * channels + c) * s.d_conv + k];
                }
            }
        }
        for (int i = 0; i < 2 * s.n_heads; ++i) rate.push_back(s.A[i] * kLog2e);
        problem = {s.zxbcdt,    s.y,       taps.data(),   s.conv_bias, s.dt_bias,
                   rate.data(), s.D,       s.n_sequences, s.length,    s.n_heads,
                   s.headdim,   s.d_state, s.d_conv,      s.eps};
    }

    std::vector<float> taps, rate;
    Problem problem;
};

// While an instance lives, denormal numbers, which decaying states end in, count as 0.
class FlushToZero {
public:
#ifdef __x86_64__
    FlushToZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~FlushToZero() { _mm_setcsr(before_); }

private:
    unsigned before_;
#else
    FlushToZero() {}
#endif
};

struct Free {
    void operator()(float* p) const { std::free(p); }
};

}  // namespace

int run(const BsmCpuScan& scan, const Parallel& parallel) {
    if (const int status = check(scan)) return status;
    const Kernel& kernel = *find(scan.isa);
    try {
        const Prepared prepared(scan);
        const Problem& problem = prepared.problem;
        const size_t bytes = (kernel.scratch_floats(problem) * sizeof(float) + kAlignment - 1) /
                             kAlignment * kAlignment;
        const int64_t tasks = 2 * problem.n_sequences;
        std::atomic<int64_t> next{0};
        std::atomic<bool> no_memory{false};
        parallel(tasks, [&] {
            int64_t task = next++;
            if (task >= tasks) return;
            const std::unique_ptr<float, Free> scratch(
                static_cast<float*>(std::aligned_alloc(kAlignment, bytes)));
            if (!scratch) no_memory = true;
            const FlushToZero flush;
            for (; task < tasks && !no_memory; task = next++) {
                kernel.scan_sequence(problem, task / 2, static_cast<int>(task % 2), scratch.get());
            }
        });
        return no_memory ? BSM_CPU_NO_MEMORY : BSM_CPU_OK;
    } catch (const std::bad_alloc&) {
        return BSM_CPU_NO_MEMORY;
    }
}

namespace {

// The calling thread works too; if a thread cannot be started, the others do its share.
void in_threads(int64_t most, int threads, const std::function<void()>& worker) {
    int64_t count = threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
    if (count > most) count = most;
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < count; ++i) others.emplace_back(worker);
    } catch (const std::system_error&) {
    }
    worker();
    for (std::thread& other : others) other.join();
}

}  // namespace
}  // namespace bsm_cpu

extern "C" {

int bsm_cpu_scan_abi(void) { return BSM_CPU_SCAN_ABI; }

int bsm_cpu_scan(const BsmCpuScan* scan) {
    if (!scan) return BSM_CPU_NULL_POINTER;
    return bsm_cpu::run(*scan, [&](int64_t most, const std::function<void()>& worker) {
        bsm_cpu::in_threads(most, scan->threads, worker);
    });
}

const char* bsm_cpu_scan_isa_name(int isa) {
    const bsm_cpu::Kernel* kernel = bsm_cpu::find(isa);
    return kernel ? kernel->name : "";
}

const char* bsm_cpu_scan_status_text(int status) {
    switch (status) {
        case BSM_CPU_OK: return "done";
        case BSM_CPU_BAD_STRUCT:
            return "the caller was built for another version of bsm_scan_cpu.h";
        case BSM_CPU_NULL_POINTER: return "an array is missing";
        case BSM_CPU_BAD_SIZES: return "a size is below 1 or too large";
        case BSM_CPU_BAD_EPS: return "eps is negative or not finite";
        case BSM_CPU_BAD_ISA: return "this CPU or this library lacks the requested instructions";
        case BSM_CPU_NO_MEMORY: return "out of memory for the tiles of a thread";
        default: return "unknown status";
    }
}

}  // extern "C"
