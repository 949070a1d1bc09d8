// The emulated GPU: the functions of device_ptx.cuh, with the layouts that the PTX ISA defines for
// their instructions. Shared memory starts as NaN, asynchronous copies arrive only when they are
// waited for, and operands are rounded as tensor cores round them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "machine.h"

#define BSM_DEVICE inline
#define BSM_KERNEL(max_threads, min_blocks) void
#define BSM_UNROLL
#define BSM_ROLLED

namespace bsm::device {

struct alignas(16) Bytes16 {
    uint32_t word[4];
};

inline int thread_index() { return on_host::thread_index(); }
inline int block_index() { return static_cast<int>(on_host::block_index()); }
inline int block_count() { return static_cast<int>(on_host::block_count()); }
inline char* shared_memory() { return on_host::shared_memory(on_host::cluster_rank()); }

inline void block_barrier() { on_host::block_barrier(); }
inline void cluster_arrive() { on_host::cluster_arrive(); }
inline void cluster_wait() { on_host::cluster_wait(); }
inline void cluster_arrive_relaxed() { on_host::cluster_arrive_relaxed(); }

// As on a GPU, an address names the block and the place in its shared memory.
inline uint32_t peer_address(const void* own, int rank) {
    return static_cast<uint32_t>(static_cast<const char*>(own) - shared_memory()) + (rank << 24);
}
inline char* at_peer(uint32_t address) {
    return on_host::shared_memory(address >> 24) + (address & 0xffffff);
}
inline float load_peer(uint32_t address) { return *reinterpret_cast<float*>(at_peer(address)); }
inline void store_peer(uint32_t address, const Bytes16& value) {
    *reinterpret_cast<Bytes16*>(at_peer(address)) = value;
}

template <class V>
struct Lanes {
    V of[on_host::kLanes];
    explicit Lanes(const V& mine) { on_host::exchange(&mine, sizeof mine, of); }
};

inline int lane_index() { return thread_index() % on_host::kLanes; }

template <class V>
V shuffle_xor(V value, int mask) {
    return Lanes<V>(value).of[lane_index() ^ mask];
}
template <class V>
V shuffle_up(V value, int delta) {
    const int lane = lane_index();
    return Lanes<V>(value).of[lane < delta ? lane : lane - delta];
}
template <class V>
V shuffle_from(V value, int lane) {
    return Lanes<V>(value).of[lane];
}

// Pending copies of the running thread; wait_copies performs them, as late as a GPU may.
inline void copy_async(void* shared, const void* global, bool valid) {
    on_host::later({shared, valid ? global : nullptr});
}
inline void wait_copies() {
    for (on_host::Copy copy; on_host::next_copy(copy);) {
        Bytes16 bytes{};
        if (copy.global) std::memcpy(&bytes, copy.global, sizeof bytes);
        *static_cast<Bytes16*>(copy.shared) = bytes;  // faults if misaligned, as a GPU would
    }
}

// Reads, so that AddressSanitizer finds an invalid address.
inline void prefetch(const void* global) { (void)*static_cast<const volatile char*>(global); }
inline Bytes16 load_global(const void* global) { return *static_cast<const Bytes16*>(global); }
inline void store_global(void* global, const Bytes16& value) {
    *static_cast<Bytes16*>(global) = value;
}

inline void load_matrices(uint32_t (&r)[4], const void* row) {
    const Lanes<const void*> rows(row);
    const int lane = lane_index();
    for (int matrix = 0; matrix < 4; ++matrix) {
        const auto* values = static_cast<const uint16_t*>(rows.of[8 * matrix + lane / 4]);
        std::memcpy(&r[matrix], values + 2 * (lane % 4), 4);
    }
}
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
    const Lanes<const void*> rows(row);
    const int lane = lane_index();
    for (int matrix = 0; matrix < 4; ++matrix) {
        const auto value = [&](int k) -> uint32_t {
            return static_cast<const uint16_t*>(rows.of[8 * matrix + k])[lane / 4];
        };
        r[matrix] = value(2 * (lane % 4)) | value(2 * (lane % 4) + 1) << 16;
    }
}

inline float bits_to_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline uint32_t float_to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

inline float float_of_f16(uint16_t bits) {
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return static_cast<float>(value);
}
inline uint16_t f16_of_float(float value) {
    const auto rounded = static_cast<_Float16>(value);
    uint16_t bits;
    std::memcpy(&bits, &rounded, 2);
    // Saturated: an infinity becomes the largest value.
    return (bits & 0x7fff) == 0x7c00 ? (bits & 0x8000) | 0x7bff : bits;
}
inline uint16_t bf16_of_float(float value) {
    const uint32_t bits = float_to_bits(value);
    if (std::isnan(value)) return 0x7fff;
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to nearest, even
}
inline uint32_t pack_f16(float low, float high) {
    return f16_of_float(low) | static_cast<uint32_t>(f16_of_float(high)) << 16;
}
inline uint32_t pack_bf16(float low, float high) {
    return bf16_of_float(low) | static_cast<uint32_t>(bf16_of_float(high)) << 16;
}
inline uint32_t round_to_tf32(float value) {  // to nearest, ties away from zero
    const uint32_t bits = float_to_bits(value);
    return std::isfinite(value) ? (bits + 0x1000) & ~0x1fffu : bits;
}

// d += a b of a warp, fragments as the PTX ISA lays them out for m16n8: lane = 4 group + t holds
// d(group, 2t), d(group, 2t + 1), d(group + 8, 2t), d(group + 8, 2t + 1).
struct Operands {
    uint32_t a[4], b[2];
};

template <class ElementA, class ElementB>
void multiply(float (&d)[4], int depth, ElementA a, ElementB b) {
    const int group = lane_index() / 4, t = lane_index() % 4;
    for (int i = 0; i < 4; ++i)
        for (int k = 0; k < depth; ++k) d[i] += a(group + i / 2 * 8, k) * b(k, 2 * t + i % 2);
}

template <class Convert>
void multiply_16bit(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Convert value) {
    Operands mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const Lanes<Operands> lanes(mine);
    // Register k / 8 * 2 + row / 8 of lane 4 (row % 8) + k % 8 / 2 holds a(row, k) of A.
    multiply(
        d, 16,
        [&](int row, int k) {
            const Operands& of = lanes.of[row % 8 * 4 + k % 8 / 2];
            return value(of.a[k / 8 * 2 + row / 8] >> k % 2 * 16 & 0xffff);
        },
        [&](int k, int column) {
            return value(lanes.of[column * 4 + k % 8 / 2].b[k / 8] >> k % 2 * 16 & 0xffff);
        });
}
inline void multiply_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiply_16bit(d, a, b, [](uint32_t bits) { return float_of_f16(bits); });
}
inline void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiply_16bit(d, a, b, [](uint32_t bits) { return bits_to_float(bits << 16); });
}
inline void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Operands mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const Lanes<Operands> lanes(mine);
    const auto value = [](uint32_t bits) { return bits_to_float(bits & ~0x1fffu); };
    multiply(
        d, 8,
        [&](int row, int k) { return value(lanes.of[row % 8 * 4 + k % 4].a[k / 4 * 2 + row / 8]); },
        [&](int k, int column) { return value(lanes.of[column * 4 + k % 4].b[k / 4]); });
}

inline float minimum(float a, float b) { return a < b || std::isnan(a) ? a : b; }
inline float exp2_fast(float x) { return std::exp2(x); }
inline float tanh_fast(float x) {  // eleven bits, all that tanh.approx promises
    return bits_to_float(float_to_bits(std::tanh(x)) & ~0x0fffu);
}
inline float reciprocal(float x) { return 1 / x; }
inline float reciprocal_root(float x) { return 1 / std::sqrt(x); }
inline float root(float x) { return std::sqrt(x); }

}  // namespace bsm::device
