// Vectors of BSM_WIDTH floats in the compiler's own extension, and the functions that a scan needs.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace bsm_cpu {
namespace BSM_ISA {

constexpr int kWidth = BSM_WIDTH;

typedef float V __attribute__((vector_size(4 * BSM_WIDTH)));
typedef int32_t I __attribute__((vector_size(4 * BSM_WIDTH)));
typedef float Unaligned __attribute__((vector_size(4 * BSM_WIDTH), aligned(4), may_alias));

#define BSM_INLINE inline __attribute__((always_inline))

BSM_INLINE V load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
BSM_INLINE void store(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }
BSM_INLINE V splat(float x) { return V{} + x; }

// The first `count` lanes; the others are 0, or left alone.
BSM_INLINE V load_part(const float* p, int count) {
    V v{};
    std::memcpy(&v, p, sizeof(float) * count);
    return v;
}
BSM_INLINE void store_part(float* p, V v, int count) { std::memcpy(p, &v, sizeof(float) * count); }

BSM_INLINE I lanes() {
    I v{};
    for (int i = 0; i < kWidth; ++i) v[i] = i;
    return v;
}

BSM_INLINE float sum(V v) {
    float total = 0;
    for (int i = 0; i < kWidth; ++i) total += v[i];
    return total;
}

// 2^x for x <= 126; 0 below -126; NaN stays NaN. Relative error 2e-7.
BSM_INLINE V exp2(V x) {
    const V kRound = splat(0x1.8p23f);  // adding it rounds to an integer, in the lowest bits
    V clamped = x < -126.0f ? splat(-126.0f) : x;
    V rounded = clamped + kRound;
    V f = clamped - (rounded - kRound);  // in [-0.5, 0.5]
    // Minimax of 2^f on [-0.5, 0.5].
    V p = splat(1.535336188e-4f);
    p = p * f + 1.339887440e-3f;
    p = p * f + 9.618437357e-3f;
    p = p * f + 5.550332471e-2f;
    p = p * f + 2.402264791e-1f;
    p = p * f + 6.931472028e-1f;
    p = p * f + 1.0f;
    I scaled = reinterpret_cast<I>(p) + (reinterpret_cast<I>(rounded) << 23);
    V result = x < -126.0f ? V{} : reinterpret_cast<V>(scaled);
    return x != x ? x : result;
}

constexpr float kLog2e = 1.44269504088896341f;

// x * sigmoid(x).
BSM_INLINE V silu(V x) {
    V clamped = x < -87.0f ? splat(-87.0f) : x;
    return x / (1.0f + exp2(clamped * -kLog2e));
}

// log(1 + e^x): exact to rounding at both ends.
BSM_INLINE V softplus(V x) {
    V magnitude = x < 0.0f ? -x : x;
    V t = exp2(magnitude * -kLog2e);
    V s = t / (2.0f + t);  // log(1 + t) = 2 atanh(s), s in (0, 1/3]
    V s2 = s * s;
    V series = splat(1.0f / 15);
    for (float divisor : {13.0f, 11.0f, 9.0f, 7.0f, 5.0f, 3.0f, 1.0f}) {
        series = series * s2 + 1.0f / divisor;
    }
    V positive = x < 0.0f ? V{} : x;
    return positive + 2.0f * s * series;
}

}  // namespace BSM_ISA
}  // namespace bsm_cpu
