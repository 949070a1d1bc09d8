/* bsm::BiMamba2Scan, version 1, as a C library: both directions of a Mamba2 scan on a CPU, float32.
 *
 * Shapes: N sequences, L steps, H heads, P channels per head, S state size, K taps, I = H * P,
 * W = 2 I + 2 S + H. All arrays are contiguous.
 */
#ifndef BSM_SCAN_CPU_H
#define BSM_SCAN_CPU_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BSM_CPU_API __attribute__((visibility("default")))
#else
#define BSM_CPU_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes whenever BsmCpuScan or the meaning of a function changes. */
#define BSM_CPU_SCAN_ABI 1

enum BsmCpuStatus {
    BSM_CPU_OK = 0,
    BSM_CPU_BAD_STRUCT,   /* `size` is not sizeof(BsmCpuScan): the caller has another version */
    BSM_CPU_NULL_POINTER, /* an array is missing */
    BSM_CPU_BAD_SIZES,    /* a size below 1, or more elements than 64 bits address */
    BSM_CPU_BAD_EPS,      /* negative or not finite */
    BSM_CPU_BAD_ISA,      /* instructions that this CPU or this library lacks */
    BSM_CPU_NO_MEMORY     /* no memory for a thread's tiles */
};

/* Vector instructions, from slow to fast; bsm_cpu_scan_isa_name tells which ones a library has. */
enum BsmCpuIsa { BSM_CPU_BEST = 0, BSM_CPU_PORTABLE, BSM_CPU_AVX2, BSM_CPU_AVX512 };

/* One call. Set `size` to sizeof(BsmCpuScan) first. */
typedef struct BsmCpuScan {
    size_t size;
    const float* zxbcdt;      /* (N, L, 2 W): [z, x, B, C, dt] forward, then backward */
    const float* conv_weight; /* (2, I + 2 S, K) */
    const float* conv_bias;   /* (2, I + 2 S) */
    const float* dt_bias;     /* (2, H) */
    const float* A;           /* (2, H), negative */
    const float* D;           /* (2, H) */
    float* y;                 /* (N, L, 2 I); overlaps no input */
    int64_t n_sequences;      /* N >= 1 */
    int64_t length;           /* L >= 1 */
    int32_t n_heads;          /* H */
    int32_t headdim;          /* P */
    int32_t d_state;          /* S */
    int32_t d_conv;           /* K */
    float eps;                /* added to the mean square of a row */
    int32_t threads;          /* at most this many; 0 for one per core */
    int32_t isa;              /* a BsmCpuIsa */
} BsmCpuScan;

/* Returns the BSM_CPU_SCAN_ABI that the library was built with. */
BSM_CPU_API int bsm_cpu_scan_abi(void);

/* Computes the scan and returns a BsmCpuStatus. Safe to call from several threads. */
BSM_CPU_API int bsm_cpu_scan(const BsmCpuScan* scan);

/* Returns the name of the instructions that `isa` selects on this CPU: avx512, avx2 or portable; ""
 * if this CPU or this library lacks them. */
BSM_CPU_API const char* bsm_cpu_scan_isa_name(int isa);

/* Returns one sentence for a BsmCpuStatus, as a static string. */
BSM_CPU_API const char* bsm_cpu_scan_status_text(int status);

#ifdef __cplusplus
}
#endif
#endif
