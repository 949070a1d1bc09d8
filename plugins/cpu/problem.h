// One call of the scan, checked and prepared, as all threads and instruction sets see it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bsm_cpu {

struct Problem {
    const float* zxbcdt;  // (N, L, 2 W)
    float* y;             // (N, L, 2 I)
    const float* taps;    // (2, K, C): the convolution's weights, channels innermost, C = I + 2 S
    const float* conv_bias;
    const float* dt_bias;
    const float* rate;  // (2, H): A * log2(e), so that decays are powers of two
    const float* D;
    int64_t n_sequences, length;
    int n_heads, headdim, d_state, d_conv;
    float eps;

    int d_inner() const { return n_heads * headdim; }
    int d_conv_channels() const { return d_inner() + 2 * d_state; }
    int width() const { return 2 * d_inner() + 2 * d_state + n_heads; }
};

// The functions that are compiled for each instruction set.
struct Kernel {
    const char* name;
    // Returns how many floats one thread's tiles take.
    size_t (*scratch_floats)(const Problem&);
    // Scans one sequence in one direction; `scratch` is aligned to 64 bytes and not cleared.
    void (*scan_sequence)(const Problem&, int64_t sequence, int direction, float* scratch);
};

}  // namespace bsm_cpu
