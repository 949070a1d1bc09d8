// RMSNorm over all heads of a step, which a block seldom holds alone.
//
// A group's outputs wait in shared memory as T, each step divided by its RMS over the group, which
// keeps them in range for float16. Once the other groups' sums of squares are known, one factor per
// step turns them into the norm. Blocks of a cluster read each other's sums; without a cluster the
// sums go to global memory and a second kernel multiplies.
#pragma once

#include "outputs.cuh"

namespace bsm {

// Sums the warps' squares of each step into `total`; `scale` is the reciprocal of its RMS over the
// group. If the sum overflows float32, at outputs of 1e19, the row becomes NaN.
template <class S>
BSM_DEVICE void sum_squares(const float* squares, float* total, float* scale) {
    for (int step = device::thread_index(); step < S::kChunk; step += S::kThreads) {
        float sum = 0;
        BSM_UNROLL
        for (int warp = 0; warp < S::kWarps; ++warp) sum += squares[warp * S::kChunk + step];
        total[step] = sum;
        scale[step] = device::reciprocal_root(fmaxf(sum / S::kChannels, 1e-36f));
    }
}

// The factor that undoes a group's `scale` and divides by the RMS of the whole row.
template <class S>
BSM_DEVICE float norm_factor(float group_squares, float row_squares, int d_inner, float eps) {
    return device::root(fmaxf(group_squares / S::kChannels, 1e-36f)) *
           device::reciprocal_root(row_squares / d_inner + eps);
}

// A barrier of the block, or of its cluster if there is one: threads see what others wrote before.
BSM_DEVICE void meet(const Params& params) {
    if (params.cluster > 1) {
        device::cluster_arrive();
        device::cluster_wait();
    } else {
        device::block_barrier();
    }
}

// Sums a value over the blocks of a cluster, all of which have it at the same address as `own`.
BSM_DEVICE float cluster_sum(const float* own, int cluster) {
    if (cluster == 1) return *own;
    float sum = 0;
    BSM_ROLLED
    for (int rank = 0; rank < cluster; ++rank)
        sum += device::load_peer(device::peer_address(own, rank));
    return sum;
}

template <class T>
BSM_DEVICE Bytes16 scaled(Bytes16 unit, float factor) {
    constexpr int kWords = Pair<T>::kWords;
    BSM_UNROLL
    for (int i = 0; i < 4; i += kWords) {
        float v[2];
        Pair<T>::unpack(&unit.word[i], v);
        Pair<T>::pack(v[0] * factor, v[1] * factor, &unit.word[i]);
    }
    return unit;
}

// Writes a group's tile to y, each step times its `factor`; null: unscaled.
template <class S>
BSM_DEVICE void write_outputs(const Tile<typename S::T, S::kChannels>& tile, const float* factor,
                              const Chunk<S>& chunk, const Group<S>& group) {
    using T = typename S::T;
    const UnitsOfThread<S> own;
    if (own.column() >= group.channels()) return;
    T* to = chunk.y(own.first) + group.first_channel() + own.column();
    BSM_UNROLL
    for (int turn = 0; turn < own.kTurns; ++turn, to += own.kStep * chunk.scan.stride_y) {
        const int row = own.first + turn * own.kStep;
        if (row >= chunk.rows) continue;
        Bytes16 values = tile.unit(row, own.unit);
        if (factor) values = scaled<T>(values, factor[row]);
        device::store_global(to, values);
    }
}

// Writes a group's sums of squares for the second kernel.
template <class S>
BSM_DEVICE void write_squares(const float* total, const Chunk<S>& chunk, const Group<S>& group) {
    for (int row = device::thread_index(); row < chunk.rows; row += S::kThreads)
        chunk.squares(row, group.number) = total[row];
}

// The second kernel, one warp per row; `rows` = 2 N L.
template <class S>
BSM_KERNEL(256, 4) normalise(const Params params, int64_t rows) {
    using T = typename S::T;
    constexpr int kUnits = S::kChannels / kPerUnit<T>;  // in a group
    const int d_inner = params.n_heads * S::kHeaddim;
    const int64_t step = int64_t{device::block_count()} * 8;
    for (int64_t row = int64_t{device::block_index()} * 8 + warp_index(); row < rows; row += step) {
        const float* squares = params.squares + row * params.groups;
        float sum = 0;
        for (int group = lane_index(); group < params.groups; group += 32) sum += squares[group];
        for (int mask = 16; mask; mask /= 2) sum += device::shuffle_xor(sum, mask);
        auto* y = reinterpret_cast<Bytes16*>(static_cast<T*>(params.y) + row * d_inner);
        for (int unit = lane_index(); unit < d_inner / kPerUnit<T>; unit += 32)
            device::store_global(
                &y[unit], scaled<T>(y[unit], norm_factor<S>(squares[unit / kUnits], sum, d_inner,
                                                            params.eps)));
    }
}

}  // namespace bsm
