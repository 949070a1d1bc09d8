// From the features in global memory to tiles: the convolved x, B and C, the gate z, and the decays.
#pragma once

#include "problem.cuh"

namespace bsm {

// The unit of 16 bytes at `from`, by elements where rows are not aligned.
template <class T>
BSM_DEVICE Bytes16 load_unit(const T* from, bool aligned) {
    if (aligned) return device::load_global(from);
    Bytes16 unit;
    T element[kPerUnit<T>];
    BSM_UNROLL
    for (int i = 0; i < kPerUnit<T>; ++i) element[i] = from[i];
    BSM_UNROLL
    for (int i = 0; i < 4; ++i) {
        if constexpr (sizeof(T) == 4) {
            unit.word[i] = device::float_to_bits(element[i]);
        } else {
            unit.word[i] = element[2 * i].bits | uint32_t{element[2 * i + 1].bits} << 16;
        }
    }
    return unit;
}

// SiLU of the causal convolution of a chunk, (kChunk, kWidth): channels from `channel` of the
// convolution on, of which `channels` exist; the rest is 0. Steps behind the end read as 0.
//
// A thread takes one unit of channels and four steps, for which it loads seven rows at once.
template <class S, int kWidth>
BSM_DEVICE void convolve(const Tile<typename S::T, kWidth>& tile, const Params& params,
                         const Scan<S>& scan, int64_t start, int channel, int channels) {
    using T = typename S::T;
    constexpr int kUnits = Tile<T, kWidth>::kUnits, kSteps = 4, kRows = kSteps + kTaps - 1;
    const int first = scan.direction * (scan.d_inner + 2 * S::kDState) + channel;
    const T* weights = static_cast<const T*>(params.conv_weight) + int64_t{first} * kTaps;
    const T* biases = static_cast<const T*>(params.conv_bias) + first;
    BSM_ROLLED
    for (int item = device::thread_index(); item < kUnits * (S::kChunk / kSteps);
         item += S::kThreads) {
        const int unit = item % kUnits, row = item / kUnits * kSteps;
        const int column = unit * kPerUnit<T>;
        Bytes16 in[kRows] = {}, out[kSteps] = {};
        if (column < channels) {
            BSM_UNROLL
            for (int i = 0; i < kRows; ++i) {
                const int64_t step = start + row + i - (kTaps - 1);
                if (step >= 0 && step < scan.length)
                    in[i] = load_unit(scan.features(step) + scan.x_at() + channel + column,
                                      params.aligned);
            }
            BSM_UNROLL
            for (int pair = 0; pair < kPerUnit<T> / 2; ++pair) {
                constexpr int kWords = Pair<T>::kWords;
                const T* of_pair = weights + (column + 2 * pair) * kTaps;
                Bytes16 units[kWords];  // two channels by four taps
                BSM_UNROLL
                for (int i = 0; i < kWords; ++i)
                    units[i] = device::load_global(of_pair + i * kPerUnit<T>);
                float weight[2][kTaps / 2][2], bias[2], x[kRows][2];
                BSM_UNROLL
                for (int i = 0; i < kTaps; ++i)
                    Pair<T>::unpack(&units[i * kWords / 4].word[i * kWords % 4],
                                    weight[i / 2][i % 2]);
                load_pair(biases + column + 2 * pair, bias);
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
        BSM_UNROLL
        for (int i = 0; i < kSteps; ++i) tile.unit(row + i, unit) = out[i];
    }
}

// Starts to copy z of a group and chunk, (kChunk, kChannels); what does not exist is 0.
template <class S>
BSM_DEVICE void copy_gate(const Tile<typename S::T, S::kChannels>& tile, const Params& params,
                          const Scan<S>& scan, const Group<S>& group, int64_t start) {
    using T = typename S::T;
    constexpr int kUnits = Tile<T, S::kChannels>::kUnits;
    BSM_ROLLED
    for (int item = device::thread_index(); item < kUnits * S::kChunk; item += S::kThreads) {
        const int unit = item % kUnits, row = item / kUnits, column = unit * kPerUnit<T>;
        const bool exists = start + row < scan.length && column < group.channels();
        const T* from = scan.features(exists ? start + row : 0) + scan.z_at() +
                        (exists ? group.first_channel() + column : 0);
        if (params.aligned) {
            device::copy_async(&tile.unit(row, unit), from, exists);
        } else {
            tile.unit(row, unit) = exists ? load_unit(from, false) : Bytes16{};
        }
    }
}

// Asks for the rows that the next chunk will load.
template <class S>
BSM_DEVICE void prefetch_chunk(const Scan<S>& scan, const Group<S>& group, int64_t start) {
    using T = typename S::T;
    constexpr int kLine = 128 / sizeof(T);
    constexpr int kOwn = (S::kChannels + kLine - 1) / kLine;  // of z and of x
    constexpr int kShared = (2 * S::kDState + kLine - 1) / kLine;
    constexpr int kLines = 2 * kOwn + kShared;
    BSM_ROLLED
    for (int item = device::thread_index(); item < kLines * S::kChunk; item += S::kThreads) {
        const int64_t step = start + item / kLines;
        const int line = item % kLines;
        if (step >= scan.length) continue;
        const int column = line < kOwn       ? scan.z_at() + group.first_channel() + line * kLine
                           : line < 2 * kOwn ? scan.x_at() + group.first_channel() +
                                                   (line - kOwn) * kLine
                                             : scan.B_at() + (line - 2 * kOwn) * kLine;
        device::prefetch(scan.features(step) + column);
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
    BSM_DEVICE void compute(const Params& params, const Scan<S>& scan, const Group<S>& group,
                            int64_t start) const {
        constexpr int kOwn = S::kChunk / 32;
        if (warp_index() >= S::kHeads) return;
        const Head own = head(warp_index());
        const bool exists = warp_index() < group.heads;
        const int h = group.first_head + warp_index();
        const float bias = exists ? params.dt_bias[scan.direction * params.n_heads + h] : 0;
        const float A = exists ? params.A[scan.direction * params.n_heads + h] : 0;
        float dt[kOwn];
        double sum[kOwn];
        BSM_UNROLL
        for (int i = 0; i < kOwn; ++i) {
            const int64_t step = start + lane_index() * kOwn + i;
            // Steps behind the end neither decay nor feed the state.
            dt[i] = exists && step < scan.length
                        ? softplus(to_float(scan.features(step)[scan.dt_at() + h]) + bias)
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
