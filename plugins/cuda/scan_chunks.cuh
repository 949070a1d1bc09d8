// The scan of sequences of any length, as along time: a block takes one group of heads in one
// direction of a sequence and processes its chunks in order. The state stays in registers.
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
    // z, later overwritten by y.
    BSM_DEVICE Tile<T, S::kChannels> z() const { return {reinterpret_cast<T*>(at + 2 * kB + kX)}; }
    BSM_DEVICE Tile<T, S::kChunk> M(int head) const {
        return {reinterpret_cast<T*>(at + 2 * kB + 2 * kX + head * kM)};
    }
    BSM_DEVICE Decays<S> decays() const { return {at + kDecays}; }
    // (warps, chunk)
    BSM_DEVICE float* squares() const { return reinterpret_cast<float*>(at + kSquares); }
    // (chunk); used alternately, as other blocks of the cluster may be a chunk behind.
    BSM_DEVICE float* totals(int turn) const { return squares() + (S::kWarps + turn) * S::kChunk; }
    // (chunk)
    BSM_DEVICE float* scale() const { return totals(2); }
};

// What a block works on. Constructed again for each use, because keeping it would take registers
// that the state needs.
template <class S>
struct ChunkOfBlock {
    Group<S> group;
    Chunk<S> chunk;

    BSM_DEVICE ChunkOfBlock(const Params& params, int64_t start)
        : ChunkOfBlock(params, start, device::block_index()) {}
    BSM_DEVICE ChunkOfBlock(const Params& params, int64_t start, int block)
        : group(params, block % params.groups),
          chunk(Scan<S>(params, block / params.groups), start) {}
};

template <class S>
BSM_DEVICE void load_chunk(const Params& params, const ChunksMemory<S>& memory, int64_t start) {
    const ChunkOfBlock<S> at(params, start);
    const int d_inner = at.chunk.scan.d_inner;
    const Part<typename S::T> xBC[] = {
        {memory.x(), at.group.first_channel(), at.group.channels()},
        {memory.B(), d_inner, S::kDState},
        {memory.C(), d_inner + S::kDState, S::kDState}};
    convolve<S>(params, at.chunk, xBC, params.cluster, at.group.number % params.cluster);
    const int head = warp_index();
    if (head < S::kHeads)
        Decays<S>::compute(params, at.chunk, at.group.first_head + head,
                           memory.decays().head(head));
    meet(params);  // x, B, C and decays are complete, z is free
    copy_gate<S>(memory.z(), params, at.chunk, at.group);
    const Scan<S>& scan = at.chunk.scan;
    const Chunk<S> next(scan, start + S::kChunk);
    prefetch<S::kChannels>(next, scan.z_at() + at.group.first_channel());
    prefetch<S::kChannels>(next, scan.x_at() + at.group.first_channel());
    prefetch<2 * S::kDState>(next, scan.B_at());
    prefetch<1>(next, scan.dt_at() + at.group.first_head);
}

// Computes y of the chunk in place of z, each row divided by its RMS over the group.
template <class S>
BSM_DEVICE void compute_chunk(const Params& params, const ChunksMemory<S>& memory, int64_t start,
                              float* totals, const State<S>& state) {
    const int own = Outputs<S>::head();
    Outputs<S> y;
    y.clear();
    if (start) y.add_state(memory.C(), state, memory.decays().head(own));
    y.add_chunk(memory.M(own), memory.x());
    {
        const ChunkOfBlock<S> at(params, start);
        y.gate(memory.x(), memory.z(), at.group.skip(params, at.chunk.scan.direction, own),
               memory.squares());
    }
    device::block_barrier();  // all squares are there
    sum_squares<S>(memory.squares(), totals, memory.scale());
    device::block_barrier();  // their sums are there
    y.store(memory.z(), memory.scale());
}

template <class S>
BSM_DEVICE void write_chunk(const Params& params, const ChunksMemory<S>& memory, int64_t start,
                            const float* totals) {
    const ChunkOfBlock<S> at(params, start);
    if (params.squares) {
        write_squares<S>(totals, at.chunk, at.group);
    } else {
        for (int row = device::thread_index(); row < S::kChunk; row += S::kThreads) {
            const float of_row = cluster_sum(&totals[row], params.cluster);
            memory.scale()[row] =
                norm_factor<S>(totals[row], of_row, at.chunk.scan.d_inner, params.eps);
        }
        device::block_barrier();  // factors are complete
    }
    write_outputs<S>(memory.z(), params.squares ? nullptr : memory.scale(), at.chunk, at.group);
}

template <class S>
BSM_KERNEL(S::kThreads, 2) scan_chunks(const Params params) {
    const ChunksMemory<S> memory{device::shared_memory()};
    if (params.cluster > 1) {  // the other blocks must run before their memory is written
        device::cluster_arrive_relaxed();
        device::cluster_wait();
    }
    State<S> state;
    state.clear();
    for (int64_t start = 0; start < params.length; start += S::kChunk) {
        float* totals = memory.totals(start / S::kChunk % 2);
        load_chunk<S>(params, memory, start);
        {
            Scores<S> scores;
            scores.compute(memory.C(), memory.B());
            store_masks(scores, memory, memory.decays());
        }
        device::wait_copies();
        device::block_barrier();  // M and z are there
        compute_chunk<S>(params, memory, start, totals, state);
        state.advance(memory.x(), Outputs<S>::column(), memory.B(),
                      memory.decays().head(Outputs<S>::head()));
        meet(params);  // y and the sums of all groups are complete; x, B, C and decays are free
        write_chunk<S>(params, memory, start, totals);
    }
    if (params.cluster > 1) {  // other blocks may still read this block's sums
        device::cluster_arrive_relaxed();
        device::cluster_wait();
    }
}

}  // namespace bsm
