// device.cuh on a GPU of compute capability 8.0 or newer: one instruction per function. PTX ISA 8.x
// defines the layouts of the fragments, on which products.cuh relies.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define BSM_DEVICE __device__ __forceinline__
#define BSM_KERNEL(max_threads, min_blocks) \
    __global__ void __launch_bounds__(max_threads, min_blocks)
#define BSM_UNROLL _Pragma("unroll")
#define BSM_ROLLED _Pragma("unroll 1")

namespace bsm::device {

struct alignas(16) Bytes16 {
    uint32_t word[4];
};

// Indices are volatile so that addresses are computed where they are needed: otherwise the compiler
// would move every address of every fragment out of the loop over chunks, and spill.
BSM_DEVICE int thread_index() {
    int index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    __builtin_assume(index >= 0 && index < 1024);
    return index;
}
BSM_DEVICE int block_index() {
    int index;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
    __builtin_assume(index >= 0);
    return index;
}
BSM_DEVICE int block_count() { return static_cast<int>(gridDim.x); }

BSM_DEVICE char* shared_memory() {
    extern __shared__ Bytes16 shared_units[];
    return reinterpret_cast<char*>(shared_units);
}

BSM_DEVICE uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Memory order: after a barrier each thread of the block, or cluster, sees what any of them wrote
// before it. Exchanges and products order nothing.

BSM_DEVICE void block_barrier() { __syncthreads(); }

#if __CUDA_ARCH__ >= 900
BSM_DEVICE void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
// Orders no memory: only keeps a block from starting, or ending, before the others.
BSM_DEVICE void cluster_arrive_relaxed() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
BSM_DEVICE void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The address of the same place in the shared memory of another block of the cluster.
BSM_DEVICE uint32_t peer_address(const void* own, int rank) {
    uint32_t address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(address)
        : "r"(shared_address(own)), "r"(rank));
    return address;
}
BSM_DEVICE float load_peer(uint32_t address) {
    float value;
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
    return value;
}
BSM_DEVICE void store_peer(uint32_t address, const Bytes16& v) {
    asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3])
                 : "memory");
}
#else  // never launched with a cluster
BSM_DEVICE void cluster_arrive() { __trap(); }
BSM_DEVICE void cluster_arrive_relaxed() { __trap(); }
BSM_DEVICE void cluster_wait() { __trap(); }
BSM_DEVICE uint32_t peer_address(const void*, int) { __trap(); return 0; }
BSM_DEVICE float load_peer(uint32_t) { __trap(); return 0; }
BSM_DEVICE void store_peer(uint32_t, const Bytes16&) { __trap(); }
#endif

template <class V>
BSM_DEVICE V shuffle_xor(V value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
// The value `delta` lanes below; a lane's own value where there is none.
template <class V>
BSM_DEVICE V shuffle_up(V value, int delta) {
    return __shfl_up_sync(0xffffffffu, value, delta);
}
template <class V>
BSM_DEVICE V shuffle_from(V value, int lane) {
    return __shfl_sync(0xffffffffu, value, lane);
}

// Copies 16 bytes from global to shared memory, zeros if not `valid`; visible to the block after
// wait_copies and a barrier.
BSM_DEVICE void copy_async(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}
BSM_DEVICE void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

BSM_DEVICE void prefetch(const void* global) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

// For inputs, which nothing writes while the kernels run.
BSM_DEVICE Bytes16 load_global(const void* global) {
    Bytes16 v;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
                 : "l"(global));
    return v;
}

// One instruction; the compiler would sometimes emit four.
BSM_DEVICE void store_global(void* global, const Bytes16& v) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(global), "r"(v.word[0]),
                 "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3])
                 : "memory");
}

// Loads four 8x8 matrices of 16-bit values. Lane i passes the address of row i % 8 of matrix i / 8
// and receives, of each matrix, row i / 4, columns 2 (i % 4) and the next.
BSM_DEVICE void load_matrices(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same with each matrix transposed.
BSM_DEVICE void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a b, 16 x 16 by 16 x 8.
BSM_DEVICE void multiply_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
BSM_DEVICE void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d += a b, 16 x 8 by 8 x 8, for float32 values rounded by round_to_tf32.
BSM_DEVICE void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
BSM_DEVICE uint32_t round_to_tf32(float value) {
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
    return rounded;
}

// Two values to a word, the first in the low half. float16 saturates at its largest value; NaN
// stays NaN.
BSM_DEVICE uint32_t pack_f16(float low, float high) {
    uint32_t word;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %2, %1;" : "=r"(word) : "f"(low), "f"(high));
    return word;
}
BSM_DEVICE uint32_t pack_bf16(float low, float high) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(word) : "f"(low), "f"(high));
    return word;
}
BSM_DEVICE float float_of_f16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

BSM_DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
BSM_DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }

// The smaller of both; NaN if either is NaN.
BSM_DEVICE float minimum(float a, float b) {
    float y;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}
BSM_DEVICE float exp2_fast(float x) {  // 2 ulp
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
BSM_DEVICE float tanh_fast(float x) {  // relative error 2^-11
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
BSM_DEVICE float reciprocal(float x) { return __frcp_rn(x); }
BSM_DEVICE float reciprocal_root(float x) { return rsqrtf(x); }  // 2 ulp
BSM_DEVICE float root(float x) { return __fsqrt_rn(x); }

}  // namespace bsm::device
