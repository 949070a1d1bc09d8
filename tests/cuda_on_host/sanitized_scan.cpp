// One scan of random numbers on arrays of exactly the right size, for the sanitizers.
//   sanitized_scan DTYPE HEADDIM D_STATE HEADS SEQUENCES LENGTH [BYTES_MISSING_FROM_Y]
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "bsm_scan.h"

namespace {

struct Array {
    std::unique_ptr<char, decltype(&std::free)> bytes{nullptr, &std::free};
    explicit Array(size_t size) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 16, size)) std::abort();
        bytes.reset(static_cast<char*>(memory));
    }
    char* get() const { return bytes.get(); }
};

// `count` numbers from -1 to 1, as float32 or as its upper half, which is bfloat16 and also a valid
// float16.
Array numbers(size_t count, bool wide) {
    static uint32_t random = 1;
    Array array(count * (wide ? 4 : 2));
    for (size_t i = 0; i < count; ++i) {
        random = random * 1664525 + 1013904223;
        const float value = static_cast<float>(random >> 8) / (1 << 23) - 1;
        const char* from = reinterpret_cast<const char*>(&value);
        for (int byte = 0; byte < (wide ? 4 : 2); ++byte)
            array.get()[i * (wide ? 4 : 2) + byte] = from[byte + (wide ? 0 : 2)];
    }
    return array;
}

}  // namespace

int main(int count, char** words) {
    if (count < 7) return 2;
    const auto word = [&](int i) { return std::atoll(words[i]); };
    BsmScan scan = {};
    scan.size = sizeof scan;
    scan.dtype = static_cast<int>(word(1));
    scan.headdim = static_cast<int>(word(2));
    scan.d_state = static_cast<int>(word(3));
    scan.n_heads = static_cast<int>(word(4));
    scan.n_sequences = word(5);
    scan.length = word(6);
    scan.d_conv = 4;
    scan.eps = 1e-5f;
    const bool wide = scan.dtype == BSM_FLOAT32;
    const size_t heads = scan.n_heads, inner = heads * scan.headdim, xbc = inner + 2 * scan.d_state;
    const size_t rows = scan.n_sequences * scan.length;
    const Array zxbcdt = numbers(rows * 2 * (inner + xbc + heads), wide);
    const Array weight = numbers(2 * xbc * 4, wide), bias = numbers(2 * xbc, wide);
    const Array dt_bias = numbers(2 * heads, true), A = numbers(2 * heads, true);
    const Array D = numbers(2 * heads, true);
    for (size_t i = 0; i < 2 * heads; ++i) {
        float* a = reinterpret_cast<float*>(A.get()) + i;
        *a = -1 - *a * *a;
    }
    const Array y(rows * 2 * inner * (wide ? 4 : 2) - (count > 7 ? word(7) : 0));
    scan.zxbcdt = zxbcdt.get();
    scan.conv_weight = weight.get();
    scan.conv_bias = bias.get();
    scan.dt_bias = reinterpret_cast<float*>(dt_bias.get());
    scan.A = reinterpret_cast<float*>(A.get());
    scan.D = reinterpret_cast<float*>(D.get());
    scan.y = y.get();
    int status = bsm_scan_workspace(&scan, &scan.workspace_bytes);
    const Array workspace(scan.workspace_bytes);
    scan.workspace = workspace.get();
    if (!status) status = bsm_scan_enqueue(&scan, nullptr);
    std::puts(bsm_scan_status_text(status));
    return status;
}
