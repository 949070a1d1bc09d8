/* bsm::BiMamba2Scan, version 1, as a C library: both directions of a Mamba2 scan on a CUDA device.
 *
 * Shapes: N sequences, L steps, H heads, P channels per head, S state size, I = H * P,
 * W = 2 I + 2 S + H. T is the type that `dtype` names. All arrays are contiguous, in device memory.
 */
#ifndef BSM_SCAN_H
#define BSM_SCAN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BSM_API __attribute__((visibility("default")))
#else
#define BSM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes whenever BsmScan or the meaning of a function changes. */
#define BSM_SCAN_ABI 1

enum BsmDtype { BSM_FLOAT32 = 0, BSM_FLOAT16 = 1, BSM_BFLOAT16 = 2 };

enum BsmStatus {
    BSM_OK = 0,
    BSM_BAD_STRUCT,      /* `size` is not sizeof(BsmScan): the caller has another version */
    BSM_NULL_POINTER,    /* an array is missing */
    BSM_BAD_DTYPE,       /* none of BsmDtype */
    BSM_BAD_SHAPE,       /* N or L below 1, or more elements than 64 bits address */
    BSM_BAD_N_HEADS,     /* outside 1..64 */
    BSM_BAD_HEADDIM,     /* not 32 or 64 */
    BSM_BAD_D_STATE,     /* not 32, 64 or 128 */
    BSM_BAD_D_CONV,      /* not 4 */
    BSM_BAD_EPS,         /* negative or not finite */
    BSM_MISALIGNED,      /* an array is not aligned as its field requires */
    BSM_SMALL_WORKSPACE, /* workspace_bytes below what bsm_scan_workspace returns */
    BSM_OLD_GPU,         /* compute capability below 8.0 */
    BSM_NO_KERNEL,       /* the library holds no code for this GPU */
    BSM_OLD_DRIVER,      /* the driver is absent or too old for the library */
    BSM_NO_DEVICE,       /* no CUDA device */
    BSM_CUDA_ERROR,      /* any other CUDA error: bsm_scan_cuda_error() has its text */
    BSM_STATUS_COUNT
};

/* One call. Set `size` to sizeof(BsmScan) first. */
typedef struct BsmScan {
    size_t size;
    const void* zxbcdt;      /* (N, L, 2 W) T: [z, x, B, C, dt] forward, then backward;
                                aligned to T; fastest if rows are aligned to 16 bytes */
    const void* conv_weight; /* (2, I + 2 S, 4) T, aligned to 16 bytes */
    const void* conv_bias;   /* (2, I + 2 S) T, aligned to 16 bytes */
    const float* dt_bias;    /* (2, H) */
    const float* A;          /* (2, H), negative */
    const float* D;          /* (2, H) */
    void* y;                 /* (N, L, 2 I) T, aligned to 16 bytes; overlaps no input */
    void* workspace;         /* aligned to 16 bytes */
    size_t workspace_bytes;
    int64_t n_sequences; /* N >= 1 */
    int64_t length;      /* L >= 1 */
    int32_t n_heads;     /* H: 1..64 */
    int32_t headdim;     /* P: 32 or 64 */
    int32_t d_state;     /* S: 32, 64 or 128 */
    int32_t d_conv;      /* 4 */
    float eps;           /* added to the mean square of a row */
    int32_t dtype;       /* a BsmDtype */
} BsmScan;

/* Returns the BSM_SCAN_ABI that the library was built with. */
BSM_API int bsm_scan_abi(void);

/* Sets `bytes` to the workspace that the sizes in `scan` need on any GPU, because a TensorRT engine
 * may run on another GPU than it was built on. Grows with N and L. Ignores the pointers in `scan`
 * and needs no device. */
BSM_API int bsm_scan_workspace(const BsmScan* scan, size_t* bytes);

/* Enqueues the scan on `stream` (a cudaStream_t) of the current device. Allocates nothing and
 * never synchronises, so it can be captured in a CUDA graph; errors inside the kernels appear, as
 * always, at a later synchronisation. Safe to call from several threads. CUDA loads the kernels at
 * the first call on a device, which may synchronise: call once before a capture or a measurement.
 * Intermediate float16 values saturate at 65504, so an infinity in the input may come out finite;
 * NaN stays NaN. */
BSM_API int bsm_scan_enqueue(const BsmScan* scan, void* stream);

/* Returns one sentence for a BsmStatus, as a static string. */
BSM_API const char* bsm_scan_status_text(int status);

/* Returns CUDA's own text for this thread's last BSM_CUDA_ERROR; "" if there was none. */
BSM_API const char* bsm_scan_cuda_error(void);

#ifdef __cplusplus
}
#endif
#endif
