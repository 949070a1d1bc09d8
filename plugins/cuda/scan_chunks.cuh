// The scan of sequences of any length, as along time: a block takes one group of heads of one
// direction of a sequence and walks its chunks. The state stays in registers.
#pragma once

#include "norm.cuh"

namespace bsm {

template <class S>
struct ChunksMemory {
    using T = typename S::T;
    static constexpr size_t kB = Tile<T, S::kDState>::bytes(S::kChunk);
    static constexpr size_t kX = Tile<T, S::kChannels>::bytes(S::kChunk);
    static constexpr size_t kM = Tile<T, S::kChunk>::bytes(S::kChunk);
    static constexpr size_t kRow = sizeof(float) * S::kChunk;
    static constexpr size_t kDecays = 2 * kB + 2 * kX + S::kHeads * kM;
    static constexpr size_t kSquares = kDecays + Decays<S>::bytes();
    static constexpr size_t kBytes = kSquares + (S::kWarps + 3) * kRow;

    char* at;

    BSM_DEVICE Tile<T, S::kDState> B() const { return {reinterpret_cast<T*>(at)}; }
    BSM_DEVICE Tile<T, S::kDState> C() const { return {reinterpret_cast<T*>(at + kB)}; }
    BSM_DEVICE Tile<T, S::kChannels> x() const { return {reinterpret_cast<T*>(at + 2 * kB)}; }
    // z, which becomes y.
    BSM_DEVICE Tile<T, S::kChannels> z() const { return {reinterpret_cast<T*>(at + 2 * kB + kX)}; }
    BSM_DEVICE Tile<T, S::kChunk> M(int head) const {
        return {reinterpret_cast<T*>(at + 2 * kB + 2 * kX + head * kM)};
    }
    BSM_DEVICE Decays<S> decays() const { return {at + kDecays}; }
    // (warps, chunk)
    BSM_DEVICE float* squares() const { return reinterpret_cast<float*>(at + kSquares); }
    // (chunk); two in turn, as other blocks of the cluster may be a chunk behind.
    BSM_DEVICE float* totals(int turn) const { return squares() + (S::kWarps + turn) * S::kChunk; }
    // (chunk)
    BSM_DEVICE float* scale() const { return totals(2); }
};

template <class S>
BSM_KERNEL(S::kThreads, 2) scan_chunks(const Params params) {
    const ChunksMemory<S> memory{device::shared_memory()};
    const Group<S> group(params, static_cast<int>(device::block_index() % params.groups));
    const int64_t row = device::block_index() / params.groups;
    const Scan<S> scan(params, params.first_sequence + row / 2, static_cast<int>(row % 2));
    const auto head = memory.decays().head(Outputs<S>::head());
    const auto M = memory.M(Outputs<S>::head());
    const bool has_head = Outputs<S>::head() < group.heads;
    const float D = has_head ? params.D[scan.direction * params.n_heads + group.first_head +
                                        Outputs<S>::head()]
                             : 0;
    State<S> state;
    state.clear();
    for (int64_t start = 0; start < scan.length; start += S::kChunk) {
        float* totals = memory.totals(start / S::kChunk % 2);
        convolve<S>(memory.x(), params, scan, start, group.first_channel(), group.channels());
        convolve<S>(memory.B(), params, scan, start, scan.d_inner, S::kDState);
        convolve<S>(memory.C(), params, scan, start, scan.d_inner + S::kDState, S::kDState);
        memory.decays().compute(params, scan, group, start);
        device::block_barrier();  // x, B, C and decays are there, z is free

        copy_gate<S>(memory.z(), params, scan, group, start);
        prefetch_chunk<S>(scan, group, start + S::kChunk);
        {
            Scores<S> scores;
            scores.compute(memory.C(), memory.B());
            const int warp = warp_index();
            BSM_UNROLL
            for (int h = 0; h < S::kHeads; ++h)
                if (scores.has_head(warp, h))
                    scores.store_mask(memory.M(h), memory.decays().head(h));
        }
        device::wait_copies();
        device::block_barrier();  // M and z are there

        {
            Outputs<S> y;
            y.clear();
            if (start) y.add_state(memory.C(), state, head);
            y.add_chunk(M, memory.x());
            y.gate(memory.x(), memory.z(), D, memory.squares());
            device::block_barrier();  // all squares are there
            sum_squares<S>(memory.squares(), totals, memory.scale());
            device::block_barrier();  // their sums are there
            y.store(memory.z(), memory.scale());
        }
        if (params.cluster > 1) device::cluster_arrive();
        state.advance(memory.x(), Outputs<S>::column(), memory.B(), head);
        if (params.cluster > 1) {
            device::cluster_wait();  // the sums of all groups are there, and y
        } else {
            device::block_barrier();  // y is there
        }
        if (params.squares) {
            write_squares<S>(params, totals, scan, group, start);
        } else {
            for (int i = device::thread_index(); i < S::kChunk; i += S::kThreads)
                memory.scale()[i] = norm_factor<S>(
                    totals[i],
                    params.cluster > 1 ? cluster_sum(&totals[i], params.cluster) : totals[i],
                    scan.d_inner, params.eps);
            device::block_barrier();  // factors are there
        }
        write_outputs<S>(memory.z(), params.squares ? nullptr : memory.scale(), scan, group, start);
    }
    if (params.cluster > 1) {  // others may still read this block's sums
        device::cluster_arrive();
        device::cluster_wait();
    }
}

}  // namespace bsm
