// The scan of sequences of any length, as along time: a block takes one group of heads of one
// direction of a sequence and walks its chunks. The state stays in registers.
#pragma once

#include "norm.cuh"

namespace bsm {

template <class S>
struct ChunksMemory {
    using T = typename S::T;
    Tile<T, S::kDState> B, C;
    Tile<T, S::kChannels> x, z;  // z becomes y
    Tile<T, S::kChunk> M[S::kHeads];
    Decays<S> decays;
    float* squares;    // (warps, chunk)
    float* totals[2];  // (chunk); in turn, as other blocks of the cluster may be a chunk behind
    float* scale;      // (chunk)

    static constexpr size_t kB = decltype(B)::bytes(S::kChunk);
    static constexpr size_t kX = decltype(x)::bytes(S::kChunk);
    static constexpr size_t kM = Tile<T, S::kChunk>::bytes(S::kChunk);
    static constexpr size_t kRow = sizeof(float) * S::kChunk;

    static constexpr size_t bytes() {
        return 2 * kB + 2 * kX + S::kHeads * kM + Decays<S>::bytes() + (S::kWarps + 3) * kRow;
    }

    BSM_DEVICE explicit ChunksMemory(char* at) {
        const auto take = [&at](size_t size) { return (at += size) - size; };
        B.data = reinterpret_cast<T*>(take(kB));
        C.data = reinterpret_cast<T*>(take(kB));
        x.data = reinterpret_cast<T*>(take(kX));
        z.data = reinterpret_cast<T*>(take(kX));
        for (int head = 0; head < S::kHeads; ++head) M[head].data = reinterpret_cast<T*>(take(kM));
        decays.heads = reinterpret_cast<typename Decays<S>::Head*>(take(Decays<S>::bytes()));
        squares = reinterpret_cast<float*>(take(S::kWarps * kRow));
        totals[0] = reinterpret_cast<float*>(take(kRow));
        totals[1] = reinterpret_cast<float*>(take(kRow));
        scale = reinterpret_cast<float*>(take(kRow));
    }
};

template <class S>
BSM_KERNEL(S::kThreads, 2) void scan_chunks(const Params params) {
    const ChunksMemory<S> memory(device::shared_memory());
    const Group<S> group(params, static_cast<int>(device::block_index() % params.groups));
    const int64_t row = device::block_index() / params.groups;
    const Scan<S> scan(params, params.first_sequence + row / 2, static_cast<int>(row % 2));
    const auto& head = memory.decays.heads[Outputs<S>::head()];
    const auto& M = memory.M[Outputs<S>::head()];
    const bool has_head = Outputs<S>::head() < group.heads;
    const float D = has_head ? params.D[scan.direction * params.n_heads + group.first_head +
                                        Outputs<S>::head()]
                             : 0;
    State<S> state;
    state.clear();
    for (int64_t start = 0; start < scan.length; start += S::kChunk) {
        float* totals = memory.totals[start / S::kChunk % 2];
        convolve<S>(memory.x, params, scan, start, group.first_channel(), group.channels());
        convolve<S>(memory.B, params, scan, start, scan.d_inner, S::kDState);
        convolve<S>(memory.C, params, scan, start, scan.d_inner + S::kDState, S::kDState);
        memory.decays.compute(params, scan, group, start);
        device::block_barrier();  // x, B, C and decays are there, z is free

        copy_gate<S>(memory.z, params, scan, group, start);
        prefetch_chunk<S>(scan, group, start + S::kChunk);
        {
            Scores<S> scores;
            scores.compute(memory.C, memory.B);
            BSM_UNROLL
            for (int h = 0; h < S::kHeads; ++h)
                scores.store_mask(memory.M[h], memory.decays.heads[h]);
        }
        device::wait_copies();
        device::block_barrier();  // M and z are there

        {
            Outputs<S> y;
            y.clear();
            if (start) y.add_state(memory.C, state, head);
            y.add_chunk(M, memory.x);
            y.gate(memory.x, memory.z, D, memory.squares);
            device::block_barrier();  // all squares are there
            sum_squares<S>(memory.squares, totals, memory.scale);
            device::block_barrier();  // their sums are there
            y.store(memory.z, memory.scale);
        }
        if (params.cluster > 1) device::cluster_arrive();
        state.advance(memory.x, Outputs<S>::column(), memory.B, head);
        if (params.cluster > 1) {
            device::cluster_wait();  // the sums of all groups are there, and y
        } else {
            device::block_barrier();  // y is there
        }
        if (params.squares) {
            write_squares<S>(params, totals, scan, group, start);
        } else {
            for (int i = device::thread_index(); i < S::kChunk; i += S::kThreads)
                memory.scale[i] = norm_factor<S>(
                    totals[i],
                    params.cluster > 1 ? cluster_sum(&totals[i], params.cluster) : totals[i],
                    scan.d_inner, params.eps);
            device::block_barrier();  // factors are there
        }
        write_outputs<S>(memory.z, params.squares ? nullptr : memory.scale, scan, group, start);
    }
    if (params.cluster > 1) {  // others may still read this block's sums
        device::cluster_arrive();
        device::cluster_wait();
    }
}

}  // namespace bsm
