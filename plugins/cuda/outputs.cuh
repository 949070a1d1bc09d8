// From tiles to outputs: the matrix products of a chunk, the state and the gate.
#pragma once

#include "inputs.cuh"

namespace bsm {

// A warp's part of C B^T: tiles of 16 steps by all steps up to them. If there are more warps than
// tiles, several hold the same tile and divide the heads among them.
template <class S>
struct Scores {
    using P = Products<typename S::T>;
    static constexpr int kSharing = S::kWarps > S::kRowTiles ? S::kWarps / S::kRowTiles : 1;
    static constexpr int kOwn = S::kRowTiles * kSharing / S::kWarps;  // tiles per warp
    static_assert(kOwn * S::kWarps == S::kRowTiles * kSharing);
    Accumulator value[kOwn][S::kChunk / 8];

    // Alternate sets of warps count tiles from opposite ends, so long tiles pair with short ones.
    static BSM_DEVICE int row_tile(int warp, int own) {
        const int tile = (warp + own * S::kWarps) % S::kRowTiles;
        return warp / S::kRowTiles % 2 ? S::kRowTiles - 1 - tile : tile;
    }
    static BSM_DEVICE bool has_head(int warp, int head) {
        return warp / S::kRowTiles % kSharing == head % kSharing;
    }

    // C_i B_j for j <= i, otherwise 0.
    template <class Tile>
    BSM_DEVICE void compute(const Tile& C, const Tile& B) {
        const int lane = lane_index(), warp = warp_index();
        BSM_UNROLL
        for (int own = 0; own < kOwn; ++own) {
            const int tile = row_tile(warp, own);
            BSM_UNROLL
            for (int j = 0; j < S::kChunk / 8; ++j)
                BSM_UNROLL
                for (int i = 0; i < 4; ++i) value[own][j][i] = 0;
            BSM_ROLLED
            for (int k = 0; k < S::kDState; k += P::kDepth) {
                const typename P::A a = P::load_a(lane, C, 16 * tile, k);
                BSM_UNROLL
                for (int j = 0; j < S::kRowTiles; ++j) {
                    if (j > tile) continue;  // later steps reach no earlier ones
                    typename P::B b[2];
                    P::load_b(lane, B, 16 * j, k, b);
                    P::multiply(value[own][2 * j], a, b[0]);
                    P::multiply(value[own][2 * j + 1], a, b[1]);
                }
            }
            const int later = 16 * tile + lane / 4 - lane % 4 * 2;  // row minus column
            BSM_UNROLL
            for (int j = 0; j < S::kChunk / 8; ++j)
                BSM_UNROLL
                for (int i = 0; i < 4; ++i)
                    if (later + i / 2 * 8 < 8 * j + i % 2) value[own][j][i] = 0;
        }
    }

    // Stores M(i, j) = dt_j exp2(cs_i - cs_j) C_i B_j, j <= i, of a head that the warp has.
    template <class Tile>
    BSM_DEVICE void store_mask(const Tile& M, const typename Decays<S>::Head& head) const {
        const int lane = lane_index(), g = lane / 4, t = lane % 4;
        const int warp = warp_index();
        BSM_UNROLL
        for (int own = 0; own < kOwn; ++own) {
            const int tile = row_tile(warp, own), row = 16 * tile + g;
            const float sum[2] = {head.sum()[row], head.sum()[row + 8]};
            float rest[2] = {};
            if constexpr (S::kWide) {
                rest[0] = head.sum_rest()[row];
                rest[1] = head.sum_rest()[row + 8];
            }
            BSM_UNROLL
            for (int j = 0; j < S::kChunk / 8; ++j) {
                if (j > 2 * tile + 1) continue;  // not read
                const int column = 8 * j + 2 * t;
                float feed[2], feed_rest[2] = {};
                load_pair(head.feed() + column, feed);
                if constexpr (S::kWide) load_pair(head.feed_rest() + column, feed_rest);
                float m[4];
                BSM_UNROLL
                for (int i = 0; i < 4; ++i) {
                    float decay = sum[i / 2] - feed[i % 2];
                    if constexpr (S::kWide) decay += rest[i / 2] - feed_rest[i % 2];
                    m[i] = value[own][j][i] * device::exp2_fast(device::minimum(decay, kMostDecay));
                }
                store_pair(M.at(row, column), m[0], m[1]);
                store_pair(M.at(row + 8, column), m[2], m[3]);
            }
        }
    }

    // Bounds the exponent above the diagonal, where the score is 0: 0 times infinity is NaN.
    static constexpr float kMostDecay = 127;
};

// Stores the masks of all heads of a group.
template <class S, class Memory>
BSM_DEVICE void store_masks(const Scores<S>& scores, const Memory& memory,
                            const Decays<S>& decays) {
    const int warp = warp_index();
    BSM_UNROLL
    for (int head = 0; head < S::kHeads; ++head)
        if (scores.has_head(warp, head))
            scores.store_mask(memory.M(head), decays.head(head));
}

// What a warp holds of a head's state h: its slab of channels by all of S, in float32.
template <class S>
struct State {
    using P = Products<typename S::T>;
    static constexpr int kTiles = S::kSlab / 16;
    Accumulator value[kTiles][S::kDState / 8];

    BSM_DEVICE void clear() {
        BSM_UNROLL
        for (int p = 0; p < kTiles; ++p)
            BSM_UNROLL
            for (int s = 0; s < S::kDState / 8; ++s)
                BSM_UNROLL
                for (int i = 0; i < 4; ++i) value[p][s][i] = 0;
    }

    // h = exp2(cs_last) h + sum over j of to_end_j x_j B_j^T.
    template <class TileX, class TileB>
    BSM_DEVICE void advance(const TileX& x, int column, const TileB& B,
                            const typename Decays<S>::Head& head) {
        const int lane = lane_index();
        const float carry = head.from_start()[S::kChunk - 1];
        BSM_UNROLL
        for (int p = 0; p < kTiles; ++p)
            BSM_UNROLL
            for (int s = 0; s < S::kDState / 8; ++s)
                BSM_UNROLL
                for (int i = 0; i < 4; ++i) value[p][s][i] *= carry;
        BSM_ROLLED
        for (int k = 0; k < S::kChunk; k += P::kDepth) {
            typename P::A a[kTiles];
            BSM_UNROLL
            for (int p = 0; p < kTiles; ++p)
                a[p] = P::load_a_transposed(lane, x, k, column + 16 * p, head.to_end());
            BSM_UNROLL
            for (int s = 0; s < S::kDState; s += 16) {
                typename P::B b[2];
                P::load_b_transposed(lane, B, k, s, b);
                BSM_UNROLL
                for (int p = 0; p < kTiles; ++p) {
                    P::multiply(value[p][s / 8], a[p], b[0]);
                    P::multiply(value[p][s / 8 + 1], a[p], b[1]);
                }
            }
        }
    }
};

// A warp's part of a chunk's outputs: all steps by its slab of one head's channels.
template <class S>
struct Outputs {
    using T = typename S::T;
    using P = Products<T>;
    static constexpr int kColumns = S::kSlab / 8;
    Accumulator value[S::kRowTiles][kColumns];

    static BSM_DEVICE int head() { return warp_index() / S::kWarpsPerHead; }
    // First channel of the slab, counted in the group.
    static BSM_DEVICE int column() { return warp_index() * S::kSlab; }

    BSM_DEVICE void clear() {
        BSM_UNROLL
        for (int row = 0; row < S::kRowTiles; ++row)
            BSM_UNROLL
            for (int j = 0; j < kColumns; ++j)
                BSM_UNROLL
                for (int i = 0; i < 4; ++i) value[row][j][i] = 0;
    }

    // y_i += exp2(cs_i) C_i h, with h the state before the chunk.
    template <class Tile>
    BSM_DEVICE void add_state(const Tile& C, const State<S>& state,
                              const typename Decays<S>::Head& head) {
        const int lane = lane_index(), g = lane / 4;
        BSM_UNROLL
        for (int k = 0; k < S::kDState; k += P::kDepth) {
            typename P::B b[kColumns];
            BSM_UNROLL
            for (int j = 0; j < kColumns; ++j)
                b[j] = P::from_accumulators(&state.value[j / 2][k / 8], j % 2);
            BSM_UNROLL
            for (int row = 0; row < S::kRowTiles; ++row) {
                const typename P::A a = P::load_a(lane, C, 16 * row, k);
                BSM_UNROLL
                for (int j = 0; j < kColumns; ++j) P::multiply(value[row][j], a, b[j]);
            }
        }
        BSM_UNROLL
        for (int row = 0; row < S::kRowTiles; ++row)
            BSM_UNROLL
            for (int i = 0; i < 4; ++i) {
                const float decay = head.from_start()[16 * row + g + i / 2 * 8];
                BSM_UNROLL
                for (int j = 0; j < kColumns; ++j) value[row][j][i] *= decay;
            }
    }

    // y_i += sum over j <= i of M(i, j) x_j.
    template <class TileM, class TileX>
    BSM_DEVICE void add_chunk(const TileM& M, const TileX& x) {
        const int lane = lane_index(), slab = column();
        BSM_UNROLL
        for (int k = 0; k < S::kChunk; k += P::kDepth) {
            typename P::B b[kColumns];
            BSM_UNROLL
            for (int j = 0; j < kColumns; j += 2) {
                typename P::B pair[2];
                P::load_b_transposed(lane, x, k, slab + 8 * j, pair);
                b[j] = pair[0];
                b[j + 1] = pair[1];
            }
            BSM_UNROLL
            for (int row = k / 16; row < S::kRowTiles; ++row) {
                const typename P::A a = P::load_a(lane, M, 16 * row, k);
                BSM_UNROLL
                for (int j = 0; j < kColumns; ++j) P::multiply(value[row][j], a, b[j]);
            }
        }
    }

    // y = (y + D x) SiLU(z), and its squares summed over the slab: squares[warp][step].
    template <class Tile>
    BSM_DEVICE void gate(const Tile& x, const Tile& z, float D, float* squares) {
        const int lane = lane_index(), g = lane / 4, t = lane % 4, slab = column();
        BSM_UNROLL
        for (int row = 0; row < S::kRowTiles; ++row)
            BSM_UNROLL
            for (int half = 0; half < 2; ++half) {
                const int step = 16 * row + g + 8 * half;
                float sum = 0;
                BSM_UNROLL
                for (int j = 0; j < kColumns; ++j) {
                    float skip[2], gates[2];
                    load_pair(x.at(step, slab + 8 * j + 2 * t), skip);
                    load_pair(z.at(step, slab + 8 * j + 2 * t), gates);
                    BSM_UNROLL
                    for (int i = 0; i < 2; ++i) {
                        float& y = value[row][j][2 * half + i];
                        y = (y + D * skip[i]) * silu<T>(gates[i]);
                        sum += y * y;
                    }
                }
                sum += device::shuffle_xor(sum, 1);
                sum += device::shuffle_xor(sum, 2);
                if (t == 0) squares[warp_index() * S::kChunk + step] = sum;
            }
    }

    // Stores y, scaled per step, in place of z.
    template <class Tile>
    BSM_DEVICE void store(const Tile& tile, const float* scale) const {
        const int lane = lane_index(), g = lane / 4, t = lane % 4, slab = column();
        BSM_UNROLL
        for (int row = 0; row < S::kRowTiles; ++row)
            BSM_UNROLL
            for (int half = 0; half < 2; ++half) {
                const int step = 16 * row + g + 8 * half;
                const float by = scale[step];
                BSM_UNROLL
                for (int j = 0; j < kColumns; ++j)
                    store_pair(tile.at(step, slab + 8 * j + 2 * t),
                               value[row][j][2 * half] * by, value[row][j][2 * half + 1] * by);
            }
    }
};

}  // namespace bsm
