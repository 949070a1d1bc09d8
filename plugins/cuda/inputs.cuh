// From the features in global memory to tiles: the convolved x, B and C, the gate z, and the decays.
#pragma once

#include "problem.cuh"

namespace bsm {

// The unit of 16 bytes at `from`, of any alignment.
template <class T>
BSM_DEVICE Bytes16 gather_unit(const T* from) {
    Bytes16 unit;
    BSM_UNROLL
    for (int i = 0; i < 4; ++i) {
        if constexpr (sizeof(T) == 4) {
            unit.word[i] = device::float_to_bits(from[i]);
        } else {
            unit.word[i] = from[2 * i].bits | uint32_t{from[2 * i + 1].bits} << 16;
        }
    }
    return unit;
}

// SiLU of the convolution of a unit of channels, kSteps steps of it, from the rows before and at
// them. `weights` and `biases` are those of the unit.
template <class T, int kSteps>
BSM_DEVICE void convolve_unit(const Bytes16 (&in)[kSteps + kTaps - 1], Bytes16 (&out)[kSteps],
                              const T* weights, const T* biases) {
    constexpr int kWords = Pair<T>::kWords, kRows = kSteps + kTaps - 1;
    const Bytes16 bias_unit = device::load_global(biases);
    BSM_UNROLL
    for (int pair = 0; pair < kPerUnit<T> / 2; ++pair) {
        Bytes16 units[kWords];  // two channels by four taps
        BSM_UNROLL
        for (int i = 0; i < kWords; ++i)
            units[i] = device::load_global(weights + 2 * pair * kTaps + i * kPerUnit<T>);
        float weight[2][kTaps / 2][2], bias[2], x[kRows][2];
        BSM_UNROLL
        for (int i = 0; i < kTaps; ++i)
            Pair<T>::unpack(&units[i * kWords / 4].word[i * kWords % 4], weight[i / 2][i % 2]);
        Pair<T>::unpack(&bias_unit.word[pair * kWords], bias);
        BSM_UNROLL
        for (int i = 0; i < kRows; ++i) Pair<T>::unpack(&in[i].word[pair * kWords], x[i]);
        BSM_UNROLL
        for (int i = 0; i < kSteps; ++i) {
            float sum[2];
            BSM_UNROLL
            for (int c = 0; c < 2; ++c) {
                sum[c] = bias[c];
                BSM_UNROLL
                for (int tap = 0; tap < kTaps; ++tap)
                    sum[c] += weight[c][tap / 2][tap % 2] * x[i + tap][c];
            }
            Pair<T>::pack(silu<T>(sum[0]), silu<T>(sum[1]), &out[i].word[pair * kWords]);
        }
    }
}

// SiLU of the causal convolution of a chunk, (kChunk, kWidth): channels from `channel` of the
// convolution on, of which `channels` exist; the rest is 0. Rows that do not exist read as 0.
//
// A thread takes one unit of channels and kSteps steps, and loads all rows for them at once.
template <class S, int kWidth>
BSM_DEVICE void convolve(const Tile<typename S::T, kWidth>& tile, const Params& params,
                         const Chunk<S>& chunk, int channel, int channels) {
    using T = typename S::T;
    constexpr int kUnits = Tile<T, kWidth>::kUnits, kSteps = S::kSteps;
    constexpr int kRows = kSteps + kTaps - 1;
    const int first = chunk.scan.direction * (chunk.scan.d_inner + 2 * S::kDState) + channel;
    BSM_ROLLED
    for (unsigned item = device::thread_index(); item < kUnits * (S::kChunk / kSteps);
         item += S::kThreads) {
        const int unit = item % kUnits, row = item / kUnits * kSteps;
        const int column = unit * kPerUnit<T>;
        Bytes16 in[kRows] = {}, out[kSteps] = {};
        if (column < channels) {
            const T* from = chunk.features(row) + chunk.scan.x_at() + channel + column;
            if (params.aligned) {
                BSM_UNROLL
                for (int i = 0; i < kRows; ++i) {
                    const int before = i - (kTaps - 1);
                    if (chunk.has(row + before))
                        in[i] = device::load_global(from + before * chunk.scan.stride);
                }
            } else {
                BSM_UNROLL
                for (int i = 0; i < kRows; ++i) {
                    const int before = i - (kTaps - 1);
                    if (chunk.has(row + before))
                        in[i] = gather_unit(from + before * chunk.scan.stride);
                }
            }
            convolve_unit<T, kSteps>(
                in, out, static_cast<const T*>(params.conv_weight) + (first + column) * kTaps,
                static_cast<const T*>(params.conv_bias) + first + column);
        }
        BSM_UNROLL
        for (int i = 0; i < kSteps; ++i) tile.unit(row + i, unit) = out[i];
    }
}

// Starts to copy z of a group and chunk, (kChunk, kChannels); what does not exist is 0.
template <class S>
BSM_DEVICE void copy_gate(const Tile<typename S::T, S::kChannels>& tile, const Params& params,
                          const Chunk<S>& chunk, const Group<S>& group) {
    using T = typename S::T;
    constexpr int kUnits = Tile<T, S::kChannels>::kUnits;
    BSM_ROLLED
    for (unsigned item = device::thread_index(); item < kUnits * S::kChunk; item += S::kThreads) {
        const int unit = item % kUnits, row = item / kUnits, column = unit * kPerUnit<T>;
        const bool exists = row < chunk.rows && column < group.channels();
        const T* from = chunk.features(exists ? row : 0) + chunk.scan.z_at() +
                        (exists ? group.first_channel() + column : 0);
        if (params.aligned) {
            device::copy_async(&tile.unit(row, unit), from, exists);
        } else {
            tile.unit(row, unit) = exists ? gather_unit(from) : Bytes16{};
        }
    }
}

// Asks for the rows of a chunk that will be loaded next.
template <class S>
BSM_DEVICE void prefetch_chunk(const Chunk<S>& chunk, const Group<S>& group) {
    constexpr int kLine = 128 / sizeof(typename S::T);
    constexpr int kOwn = (S::kChannels + kLine - 1) / kLine;  // lines of z, and of x
    constexpr int kLines = 2 * kOwn + (2 * S::kDState + kLine - 1) / kLine;
    BSM_ROLLED
    for (unsigned item = device::thread_index(); item < unsigned(kLines * chunk.rows);
         item += S::kThreads) {
        const int line = item % kLines;
        const int column =
            line < kOwn       ? chunk.scan.z_at() + group.first_channel() + line * kLine
            : line < 2 * kOwn ? chunk.scan.x_at() + group.first_channel() + (line - kOwn) * kLine
                              : chunk.scan.B_at() + (line - 2 * kOwn) * kLine;
        device::prefetch(chunk.features(item / kLines) + column);
    }
}

// How much a chunk's steps weigh, in float32, of the heads of a group.
//
// With a_i = dt_i A and cs_i = a_0 + .. + a_i in units of log2, step j reaches step i >= j times
// dt_j exp2(cs_i - cs_j). Sums are made in double and kept as two floats, because a difference of
// large sums must be as exact as a small sum.
template <class S>
struct Decays {
    static constexpr int kArrays = 5;
    static constexpr size_t bytes() { return sizeof(float) * kArrays * S::kChunk * S::kHeads; }

    struct Head {
        float* at;

        BSM_DEVICE float* dt() const { return at; }
        BSM_DEVICE float* sum_high() const { return at + S::kChunk; }  // cs_i
        BSM_DEVICE float* sum_low() const { return at + 2 * S::kChunk; }
        BSM_DEVICE float* from_start() const { return at + 3 * S::kChunk; }  // exp2(cs_i)
        BSM_DEVICE float* to_end() const { return at + 4 * S::kChunk; }  // dt_i exp2(cs_last - cs_i)
    };

    char* at;

    BSM_DEVICE Head head(int number) const {
        return {reinterpret_cast<float*>(at) + number * kArrays * S::kChunk};
    }

    // One warp a head, two steps a lane (one where a chunk has 32).
    BSM_DEVICE void compute(const Params& params, const Chunk<S>& chunk,
                            const Group<S>& group) const {
        constexpr int kOwn = S::kChunk / 32;
        if (warp_index() >= S::kHeads) return;
        const Head own = head(warp_index());
        const bool exists = warp_index() < group.heads;
        const int h = group.first_head + warp_index();
        const int of_direction = chunk.scan.direction * params.n_heads + h;
        const float bias = exists ? params.dt_bias[of_direction] : 0;
        const float A = exists ? params.A[of_direction] : 0;
        float dt[kOwn];
        double sum[kOwn];
        BSM_UNROLL
        for (int i = 0; i < kOwn; ++i) {
            const int row = lane_index() * kOwn + i;
            // Steps behind the end neither decay nor feed the state.
            dt[i] = exists && row < chunk.rows
                        ? softplus(to_float(chunk.features(row)[chunk.scan.dt_at() + h]) + bias)
                        : 0;
            sum[i] = double(dt[i]) * double(A) * 1.4426950408889634 + (i ? sum[i - 1] : 0);
        }
        double before = sum[kOwn - 1];
        for (int delta = 1; delta < 32; delta *= 2) {
            const double below = device::shuffle_up(before, delta);
            if (lane_index() >= delta) before += below;
        }
        const double last = device::shuffle_from(before, 31);
        before -= sum[kOwn - 1];
        BSM_UNROLL
        for (int i = 0; i < kOwn; ++i) {
            const int row = lane_index() * kOwn + i;
            const double total = before + sum[i];
            own.dt()[row] = dt[i];
            own.sum_high()[row] = static_cast<float>(total);
            own.sum_low()[row] = static_cast<float>(total - static_cast<float>(total));
            own.from_start()[row] = device::exp2_fast(static_cast<float>(total));
            own.to_end()[row] = dt[i] * device::exp2_fast(static_cast<float>(last - total));
        }
    }
};

}  // namespace bsm
