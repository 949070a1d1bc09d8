// The scan of sequences of at most one chunk, as along bands: no state. A block takes some groups
// of heads in one direction of a sequence, computes C B^T once, and keeps all their outputs in
// shared memory until the norm is known.
#pragma once

#include "norm.cuh"

namespace bsm {

template <class S>
struct ShortMemory {
    using T = typename S::T;
    static constexpr size_t kB = Tile<T, S::kDState>::bytes(S::kChunk);
    static constexpr size_t kX = Tile<T, S::kChannels>::bytes(S::kChunk);
    static constexpr size_t kM = Tile<T, S::kChunk>::bytes(S::kChunk);
    static constexpr size_t kRow = sizeof(float) * S::kChunk;
    static constexpr size_t kLater = kX + S::kHeads * kM;
    static constexpr size_t kSquares = 2 * kB > kLater ? 2 * kB : kLater;
    static constexpr size_t kGroups = kSquares + (S::kWarps + 2) * kRow;
    static constexpr size_t kGroup = kX + kRow + Decays<S>::bytes();

    static constexpr size_t bytes(int groups) { return kGroups + groups * kGroup; }

    char* at;

    // B and C until the scores are computed; then x and M take their place.
    BSM_DEVICE Tile<T, S::kDState> B() const { return {reinterpret_cast<T*>(at)}; }
    BSM_DEVICE Tile<T, S::kDState> C() const { return {reinterpret_cast<T*>(at + kB)}; }
    BSM_DEVICE Tile<T, S::kChannels> x() const { return {reinterpret_cast<T*>(at)}; }
    BSM_DEVICE Tile<T, S::kChunk> M(int head) const {
        return {reinterpret_cast<T*>(at + kX + head * kM)};
    }
    // (warps, chunk)
    BSM_DEVICE float* squares() const { return reinterpret_cast<float*>(at + kSquares); }
    // (chunk)
    BSM_DEVICE float* scale() const { return squares() + S::kWarps * S::kChunk; }
    // (chunk), summed over the groups of the block.
    BSM_DEVICE float* sums() const { return scale() + S::kChunk; }
    // For group i of the block: z, later overwritten by y; totals (chunk); decays.
    BSM_DEVICE Tile<T, S::kChannels> z(int i) const {
        return {reinterpret_cast<T*>(at + kGroups + i * kGroup)};
    }
    BSM_DEVICE float* totals(int i) const {
        return reinterpret_cast<float*>(at + kGroups + i * kGroup + kX);
    }
    BSM_DEVICE Decays<S> decays(int i) const { return {at + kGroups + i * kGroup + kX + kRow}; }
};

// Turns the outputs of a block's groups into normalised rows of y.
template <class S>
BSM_DEVICE void finish_rows(const Params& params, const ShortMemory<S>& memory,
                            const Chunk<S>& chunk, int first_group, int groups) {
    for (int step = device::thread_index(); step < S::kChunk; step += S::kThreads) {
        float sum = 0;
        for (int i = 0; i < groups; ++i) sum += memory.totals(i)[step];
        memory.sums()[step] = sum;
    }
    meet(params);  // y and the sums of all groups are complete
    for (int i = 0; i < groups; ++i) {
        const Group<S> group(params, first_group + i);
        float* totals = memory.totals(i);
        if (params.squares) {
            write_squares<S>(totals, chunk, group);
            continue;
        }
        for (int step = device::thread_index(); step < S::kChunk; step += S::kThreads) {
            const float row = cluster_sum(&memory.sums()[step], params.cluster);
            totals[step] = norm_factor<S>(totals[step], row, chunk.scan.d_inner, params.eps);
        }
    }
    if (params.cluster > 1) device::cluster_arrive_relaxed();
    device::block_barrier();
    for (int i = 0; i < groups; ++i)
        write_outputs<S>(memory.z(i),
                         params.squares ? nullptr : memory.totals(i), chunk,
                         Group<S>(params, first_group + i));
    if (params.cluster > 1) device::cluster_wait();  // other blocks have read this block's sums
}

template <class S>
BSM_KERNEL(S::kThreads, 2) scan_short(const Params params) {
    const ShortMemory<S> memory{device::shared_memory()};
    const int blocks = (params.groups + params.groups_per_block - 1) / params.groups_per_block;
    const int block = device::block_index(), first_group = block % blocks * params.groups_per_block;
    const int left = params.groups - first_group;
    const int groups = left < params.groups_per_block ? left : params.groups_per_block;
    const Scan<S> scan(params, block / blocks);
    const Chunk<S> chunk(scan, 0);

    for (int i = 0; i < groups; ++i) {
        const Group<S> group(params, first_group + i);
        copy_gate<S>(memory.z(i), params, chunk, group);
        prefetch<S::kChannels>(chunk, scan.x_at() + group.first_channel());
    }
    for (int n = warp_index(); n < groups * S::kHeads; n += S::kWarps)
        Decays<S>::compute(params, chunk, first_group * S::kHeads + n,
                           memory.decays(n / S::kHeads).head(n % S::kHeads));
    {
        const Part<typename S::T> BC[] = {
            {memory.B(), scan.d_inner, S::kDState},
            {memory.C(), scan.d_inner + S::kDState, S::kDState}};
        convolve<S>(params, chunk, BC, 1, 0);
    }
    device::block_barrier();  // B, C and decays are complete
    Scores<S> scores;
    scores.compute(memory.C(), memory.B());
    device::wait_copies();
    device::block_barrier();  // z is complete, B and C are free

    for (int i = 0; i < groups; ++i) {
        const Group<S> group(params, first_group + i);
        const int own = Outputs<S>::head();
        const float D = group.skip(params, scan.direction, own);
        const Part<typename S::T> x[] = {{memory.x(), group.first_channel(), group.channels()}};
        convolve<S>(params, chunk, x, 1, 0);
        store_masks(scores, memory, memory.decays(i));
        device::block_barrier();  // x and M are there
        Outputs<S> y;
        y.clear();
        y.add_chunk(memory.M(own), memory.x());
        y.gate(memory.x(), memory.z(i), D, memory.squares());
        device::block_barrier();  // all squares are there, x is free
        sum_squares<S>(memory.squares(), memory.totals(i), memory.scale());
        device::block_barrier();  // their sums are there
        y.store(memory.z(i), memory.scale());
    }
    finish_rows<S>(params, memory, chunk, first_group, groups);
}

}  // namespace bsm
