// Vectors of BSM_WIDTH floats, by the compiler's vector extension, and the functions of a scan.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

#if BSM_WIDTH > 4
#include <immintrin.h>
#endif

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

// Stores past the caches, for values that are read much later; `p` is aligned to a vector.
BSM_INLINE void store_away(float* p, V v) {
#if BSM_WIDTH == 16
    _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
#elif BSM_WIDTH == 8
    _mm256_stream_ps(p, reinterpret_cast<__m256>(v));
#else
    store(p, v);
#endif
}

// Makes everything that store_away wrote visible to other threads.
BSM_INLINE void finish_stores() {
#if BSM_WIDTH > 4
    _mm_sfence();
#endif
}

// Loads or stores the first `count` lanes. The others become 0 when loaded, and are not stored.
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

// 2^x for x in [-126, 126]; a smaller x counts as -126. Relative error 2e-7.
BSM_INLINE V exp2_bounded(V x) {
    const V kRound = splat(0x1.8p23f);  // adding it rounds to an integer, in the lowest bits
    const V clamped = x < -126.0f ? splat(-126.0f) : x;
    const V rounded = clamped + kRound;
    const V f = clamped - (rounded - kRound);  // in [-0.5, 0.5]
    // Minimax of 2^f on [-0.5, 0.5].
    V p = splat(1.535336188e-4f);
    p = p * f + 1.339887440e-3f;
    p = p * f + 9.618437357e-3f;
    p = p * f + 5.550332471e-2f;
    p = p * f + 2.402264791e-1f;
    p = p * f + 6.931472028e-1f;
    p = p * f + 1.0f;
    return reinterpret_cast<V>(reinterpret_cast<I>(p) + (reinterpret_cast<I>(rounded) << 23));
}

// 2^x for x <= 126: 0 below -126, and NaN stays NaN.
BSM_INLINE V exp2(V x) {
    const V power = x < -126.0f ? V{} : exp2_bounded(x);
    return x != x ? x : power;
}

constexpr float kLog2e = 1.44269504088896341f;

// a / b for b in [1, 2^126].
BSM_INLINE V quotient(V a, V b) {
#if BSM_WIDTH == 16
    const V r = reinterpret_cast<V>(_mm512_rcp14_ps(reinterpret_cast<__m512>(b)));
    return a * (r * (2.0f - b * r));  // one Newton step: relative error 2e-7, in half the time
#else
    return a / b;
#endif
}

// x * sigmoid(x); the product keeps a NaN.
BSM_INLINE V silu(V x) {
    const V clamped = x < -87.0f ? splat(-87.0f) : x;
    return quotient(x, 1.0f + exp2_bounded(clamped * -kLog2e));
}

// log(1 + e^x): exact to rounding at both ends.
BSM_INLINE V softplus(V x) {
    const V magnitude = x < 0.0f ? -x : x;
    const V t = exp2_bounded(magnitude * -kLog2e);
    const V s = t / (2.0f + t);  // log(1 + t) = 2 atanh(s), s in (0, 1/3]
    const V s2 = s * s;
    V series = splat(1.0f / 15);
    for (float divisor : {13.0f, 11.0f, 9.0f, 7.0f, 5.0f, 3.0f, 1.0f}) {
        series = series * s2 + 1.0f / divisor;
    }
    const V positive = x < 0.0f ? V{} : x;
    return positive + 2.0f * s * series;
}

}  // namespace BSM_ISA
}  // namespace bsm_cpu
