// A warp's matrix products on tensor cores: fragments of tiles in shared memory, and their product
// with float32 accumulation.
//
// An accumulator holds 16 x 8: lane = 4 g + t has (g, 2t), (g, 2t + 1), (g + 8, 2t) and
// (g + 8, 2t + 1).
// 16-bit types multiply kDepth = 16 deep. float32 multiplies 8 deep in three products of tf32
// halves, good to 2^-21; its fragments take the columns 2t and 2t + 1 of the depth where the
// hardware has t and t + 4, for A and B alike, so that accumulators can become operands there too.
#pragma once

#include "tile.cuh"

namespace bsm {

using Accumulator = float[4];

// A function that loops over fragments calls these once and passes the value on: see thread_index.
BSM_DEVICE int lane_index() { return device::thread_index() % 32; }
BSM_DEVICE int warp_index() { return device::thread_index() / 32; }

template <class T>
struct Products {
    static constexpr int kDepth = 16;

    struct A {  // 16 x 16
        uint32_t word[4];
    };
    struct B {  // 16 x 8
        uint32_t word[2];
    };

    // A(m, k) = tile(row + m, column + k).
    template <class Tile>
    static BSM_DEVICE A load_a(int lane, const Tile& tile, int row, int column) {
        A a;
        device::load_matrices(a.word, tile.at(row + lane % 16, column + lane / 16 * 8));
        return a;
    }
    // A(m, k) = tile(row + k, column + m) * weight[row + k].
    template <class Tile>
    static BSM_DEVICE A load_a_transposed(int lane, const Tile& tile, int row, int column,
                                          const float* weight) {
        A a;
        device::load_matrices_transposed(
            a.word, tile.at(row + lane % 8 + lane / 16 * 8, column + lane / 8 % 2 * 8));
        BSM_UNROLL
        for (int i = 0; i < 4; ++i) {
            const float* w = weight + row + i / 2 * 8 + lane % 4 * 2;
            float v[2];
            Pair<T>::unpack(&a.word[i], v);
            Pair<T>::pack(v[0] * w[0], v[1] * w[1], &a.word[i]);
        }
        return a;
    }
    // b[0](k, n) = tile(row + n, column + k); b[1] starts eight rows further.
    template <class Tile>
    static BSM_DEVICE void load_b(int lane, const Tile& tile, int row, int column, B (&b)[2]) {
        uint32_t word[4];
        device::load_matrices(
            word, tile.at(row + lane % 8 + lane / 16 * 8, column + lane / 8 % 2 * 8));
        b[0] = {{word[0], word[1]}};
        b[1] = {{word[2], word[3]}};
    }
    // b[0](k, n) = tile(row + k, column + n); b[1] starts eight columns further.
    template <class Tile>
    static BSM_DEVICE void load_b_transposed(int lane, const Tile& tile, int row, int column,
                                             B (&b)[2]) {
        uint32_t word[4];
        device::load_matrices_transposed(word,
                                         tile.at(row + lane % 16, column + lane / 16 * 8));
        b[0] = {{word[0], word[1]}};
        b[1] = {{word[2], word[3]}};
    }
    // B(k, n) = accumulators(8 half + n, k), with kDepth / 8 accumulators side by side.
    static BSM_DEVICE B from_accumulators(const Accumulator* across, int half) {
        B b;
        Pair<T>::pack(across[0][2 * half], across[0][2 * half + 1], &b.word[0]);
        Pair<T>::pack(across[1][2 * half], across[1][2 * half + 1], &b.word[1]);
        return b;
    }
    static BSM_DEVICE void multiply(Accumulator& d, const A& a, const B& b);
};

template <>
BSM_DEVICE void Products<Float16>::multiply(Accumulator& d, const A& a, const B& b) {
    device::multiply_f16(d, a.word, b.word);
}
template <>
BSM_DEVICE void Products<BFloat16>::multiply(Accumulator& d, const A& a, const B& b) {
    device::multiply_bf16(d, a.word, b.word);
}

template <>
struct Products<float> {
    static constexpr int kDepth = 8;

    template <int kWords>
    struct Split {  // value = high + low, both tf32
        uint32_t high[kWords], low[kWords];

        BSM_DEVICE void set(int i, float value) {
            high[i] = device::round_to_tf32(value);
            low[i] = device::round_to_tf32(value - device::bits_to_float(high[i]));
        }
    };
    using A = Split<4>;
    using B = Split<2>;

    template <class Tile>
    static BSM_DEVICE A load_a(int lane, const Tile& tile, int row, int column) {
        const int g = lane / 4, t = lane % 4;
        A a;
        BSM_UNROLL
        for (int i = 0; i < 4; ++i)
            a.set(i, *tile.at(row + g + i % 2 * 8, column + 2 * t + i / 2));
        return a;
    }
    template <class Tile>
    static BSM_DEVICE A load_a_transposed(int lane, const Tile& tile, int row, int column,
                                          const float* weight) {
        const int g = lane / 4, t = lane % 4;
        A a;
        BSM_UNROLL
        for (int i = 0; i < 4; ++i) {
            const int k = row + 2 * t + i / 2;
            a.set(i, *tile.at(k, column + g + i % 2 * 8) * weight[k]);
        }
        return a;
    }
    template <class Tile>
    static BSM_DEVICE void load_b(int lane, const Tile& tile, int row, int column, B (&b)[2]) {
        const int g = lane / 4, t = lane % 4;
        BSM_UNROLL
        for (int i = 0; i < 4; ++i)
            b[i / 2].set(i % 2, *tile.at(row + g + i / 2 * 8, column + 2 * t + i % 2));
    }
    template <class Tile>
    static BSM_DEVICE void load_b_transposed(int lane, const Tile& tile, int row, int column,
                                             B (&b)[2]) {
        const int g = lane / 4, t = lane % 4;
        BSM_UNROLL
        for (int i = 0; i < 4; ++i)
            b[i / 2].set(i % 2, *tile.at(row + 2 * t + i % 2, column + g + i / 2 * 8));
    }
    static BSM_DEVICE B from_accumulators(const Accumulator* across, int half) {
        B b;
        b.set(0, across[0][2 * half]);
        b.set(1, across[0][2 * half + 1]);
        return b;
    }
    static BSM_DEVICE void multiply(Accumulator& d, const A& a, const B& b) {
        device::multiply_tf32(d, a.low, b.high);
        device::multiply_tf32(d, a.high, b.low);
        device::multiply_tf32(d, a.high, b.high);
    }
};

}  // namespace bsm
