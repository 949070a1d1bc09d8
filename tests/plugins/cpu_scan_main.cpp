// One scan on arrays of exactly the right size, for sanitizers.
//
//     main ISA THREADS N L H P S K [SHORT]
//
// SHORT floats of the output are missing, which a sanitizer has to notice.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "bsm_scan_cpu.h"

int main(int count, char** words) {
    int64_t value[10] = {};
    for (int i = 1; i < count && i < 10; ++i) value[i] = std::atoll(words[i]);
    const int64_t N = value[3], L = value[4], H = value[5], P = value[6], S = value[7],
                  K = value[8];
    const int64_t inner = H * P, channels = inner + 2 * S, width = inner + channels + H;
    unsigned state = 1;
    const auto random = [&](int64_t size, float scale) {
        std::vector<float> values(size);
        for (float& x : values) {
            state = state * 1664525u + 1013904223u;
            x = scale * (static_cast<float>(state >> 8) / (1 << 23) - 1.0f);
        }
        return values;
    };
    const auto zxbcdt = random(N * L * 2 * width, 2), weight = random(2 * channels * K, 1);
    const auto bias = random(2 * channels, 1), dt_bias = random(2 * H, 1), D = random(2 * H, 1);
    auto A = random(2 * H, 1);
    for (float& a : A) a = -1.5f - a;
    std::vector<float> y(N * L * 2 * inner - value[9]);
    BsmCpuScan scan{};
    scan.size = sizeof(scan);
    scan.zxbcdt = zxbcdt.data();
    scan.conv_weight = weight.data();
    scan.conv_bias = bias.data();
    scan.dt_bias = dt_bias.data();
    scan.A = A.data();
    scan.D = D.data();
    scan.y = y.data();
    scan.n_sequences = N;
    scan.length = L;
    scan.n_heads = static_cast<int32_t>(H);
    scan.headdim = static_cast<int32_t>(P);
    scan.d_state = static_cast<int32_t>(S);
    scan.d_conv = static_cast<int32_t>(K);
    scan.eps = 1e-5f;
    scan.threads = static_cast<int32_t>(value[2]);
    scan.isa = static_cast<int32_t>(value[1]);
    const int status = bsm_cpu_scan(&scan);
    for (float value : y) {
        if (!(value > -1e6f && value < 1e6f)) return std::puts("not finite"), 1;
    }
    std::puts(bsm_cpu_scan_status_text(status));
    return status;
}
