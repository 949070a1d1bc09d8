// From the features in global memory to tiles: the convolved x, B and C, the gate z, the decays.
#pragma once

#include "problem.cuh"

namespace bsm {

// Loads the unit of 16 bytes at `from`, which may have any alignment.
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

// SiLU of the convolution of a unit of channels at kSteps steps, from their rows and the kTaps - 1
// rows before them. `weights` and `biases` are those of the unit.
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

// Loads a unit of channels of each row from row - (kTaps - 1) on; 0 where there is no row. `from`
// is the address of the unit in `row`.
template <class S, int kRows>
BSM_DEVICE void load_rows(Bytes16 (&in)[kRows], const Chunk<S>& chunk, int row,
                          const typename S::T* from, bool aligned) {
    const int stride = chunk.scan.stride;
    const typename S::T* at = from - (kTaps - 1) * stride;
    row -= kTaps - 1;
    if (aligned && chunk.has(row) && chunk.has(row + kRows - 1)) {
        BSM_UNROLL
        for (int i = 0; i < kRows; ++i, at += stride) in[i] = device::load_global(at);
    } else {
        BSM_UNROLL
        for (int i = 0; i < kRows; ++i, at += stride) {
            in[i] = Bytes16{};
            if (chunk.has(row + i)) in[i] = aligned ? device::load_global(at) : gather_unit(at);
        }
    }
}

// Some channels of the convolution, and the tile (kChunk, channels) that receives them.
template <class T>
struct Part {
    T* tile;
    int units;     // in a row of the tile
    int channel;   // first one, counted in the convolution
    int channels;  // that exist; the rest of the tile is 0

    template <int kWidth>
    BSM_DEVICE Part(const Tile<T, kWidth>& to, int channel_, int channels_)
        : tile(to.data), units(Tile<T, kWidth>::kUnits), channel(channel_), channels(channels_) {}
};

// SiLU of the causal convolution of a chunk, in parts. All blocks of a cluster need the same parts
// but the first: of those each convolves some steps, and gives them to all.
//
// A thread takes a unit of channels and kSteps steps at a time.
template <class S, int kParts>
BSM_DEVICE void convolve(const Params& params, const Chunk<S>& chunk,
                         const Part<typename S::T> (&parts)[kParts], int cluster, int rank) {
    using T = typename S::T;
    constexpr int kSteps = S::kSteps;
    constexpr unsigned kTurns = S::kChunk / kSteps;
    const unsigned turns = kTurns / cluster;  // of the parts but the first
    const int first = chunk.scan.direction * (chunk.scan.d_inner + 2 * S::kDState);
    unsigned items = parts[0].units * kTurns;
    BSM_UNROLL
    for (int i = 1; i < kParts; ++i) items += parts[i].units * turns;
    BSM_ROLLED
    for (unsigned item = device::thread_index(); item < items; item += S::kThreads) {
        Part<T> part = parts[0];
        unsigned of_part = item, first_turn = 0, end = part.units * kTurns;
        BSM_UNROLL
        for (int i = 1; i < kParts; ++i) {
            if (of_part < end) continue;
            of_part -= end;
            part = parts[i];
            first_turn = turns * rank;
            end = part.units * turns;
        }
        const int unit = of_part % part.units, column = unit * kPerUnit<T>;
        const int row = (of_part / part.units + first_turn) * kSteps;
        Bytes16 in[kSteps + kTaps - 1], out[kSteps] = {};
        if (column < part.channels) {
            const int channel = part.channel + column;
            load_rows<S>(in, chunk, row, chunk.features(row) + chunk.scan.x_at() + channel,
                         params.aligned);
            convolve_unit<T, kSteps>(
                in, out, static_cast<const T*>(params.conv_weight) + (first + channel) * kTaps,
                static_cast<const T*>(params.conv_bias) + first + channel);
        }
        const int peers = part.tile == parts[0].tile ? 1 : cluster;
        BSM_ROLLED
        for (int peer = 0; peer < peers; ++peer) {
            const uint32_t at = peers > 1 ? device::peer_address(part.tile, peer) : 0;
            BSM_UNROLL
            for (int i = 0; i < kSteps; ++i) {
                const unsigned index = unit_index(row + i, unit, part.units);
                if (peers > 1) {
                    device::store_peer(at + 16 * index, out[i]);
                } else {
                    reinterpret_cast<Bytes16*>(part.tile)[index] = out[i];
                }
            }
        }
    }
}

// The units of a tile (kChunk, kChannels) that a thread copies: every kStep-th row of one column.
template <class S>
struct UnitsOfThread {
    static constexpr int kUnits = Tile<typename S::T, S::kChannels>::kUnits;
    static constexpr int kStep = S::kThreads / kUnits;
    static constexpr int kTurns = S::kChunk / kStep;
    static_assert(kStep * kUnits == S::kThreads && kTurns * kStep == S::kChunk);

    int unit, first;  // first row

    BSM_DEVICE UnitsOfThread() {
        const unsigned thread = device::thread_index();
        unit = thread % kUnits;
        first = thread / kUnits;
    }
    BSM_DEVICE int column() const { return unit * kPerUnit<typename S::T>; }
};

// Starts to copy z of a group and chunk, (kChunk, kChannels); what does not exist is 0.
template <class S>
BSM_DEVICE void copy_gate(const Tile<typename S::T, S::kChannels>& tile, const Params& params,
                          const Chunk<S>& chunk, const Group<S>& group) {
    const UnitsOfThread<S> own;
    const int rows = own.column() < group.channels() ? chunk.rows : 0;
    const auto* from =
        chunk.features(own.first) + chunk.scan.z_at() + group.first_channel() + own.column();
    if (params.aligned) {
        BSM_UNROLL
        for (int turn = 0; turn < own.kTurns; ++turn, from += own.kStep * chunk.scan.stride) {
            const int row = own.first + turn * own.kStep;
            device::copy_async(&tile.unit(row, own.unit), from, row < rows);
        }
    } else {
        BSM_ROLLED
        for (int row = own.first; row < S::kChunk; row += own.kStep) {
            tile.unit(row, own.unit) = row < rows ? gather_unit(from) : Bytes16{};
            from += own.kStep * chunk.scan.stride;
        }
    }
}

// Prefetches kColumns features of a chunk into L2.
template <int kColumns, class S>
BSM_DEVICE void prefetch(const Chunk<S>& chunk, int column) {
    constexpr int kLine = 128 / sizeof(typename S::T);
    constexpr int kLines = kColumns > 1 ? (kColumns - 1) / kLine + 2 : 1;
    BSM_ROLLED
    for (unsigned item = device::thread_index(); item < unsigned(kLines * chunk.rows);
         item += S::kThreads) {
        const int at = item % kLines * kLine;  // the last one may lie in a line of its own
        device::prefetch(chunk.features(item / kLines) + column +
                         (at < kColumns ? at : kColumns - 1));
    }
}

// The weights of a chunk's steps in the sums of later steps, in float32, for the heads of a group.
//
// With a_i = dt_i A and cs_i = a_0 + .. + a_i in units of log2, step j reaches step i >= j times
// dt_j exp2(cs_i - cs_j) = exp2(cs_i - feed_j). Sums are made in double, and the float32 kernels
// keep them as two floats, because the difference of two large sums must be exact.
template <class S>
struct Decays {
    static constexpr int kArrays = S::kWide ? 6 : 4;
    static constexpr size_t bytes() { return sizeof(float) * kArrays * S::kChunk * S::kHeads; }

    struct Head {
        float* at;

        BSM_DEVICE float* sum() const { return at; }                         // cs_i
        BSM_DEVICE float* feed() const { return at + S::kChunk; }            // cs_i - log2(dt_i)
        BSM_DEVICE float* from_start() const { return at + 2 * S::kChunk; }  // exp2(cs_i)
        // dt_i exp2(cs_last - cs_i)
        BSM_DEVICE float* to_end() const { return at + 3 * S::kChunk; }
        // What rounding to float32 drops from a sum; float32 kernels only.
        BSM_DEVICE float* sum_rest() const { return at + 4 * S::kChunk; }
        BSM_DEVICE float* feed_rest() const { return at + 5 * S::kChunk; }
    };

    char* at;

    BSM_DEVICE Head head(int number) const {
        return {reinterpret_cast<float*>(at) + number * kArrays * S::kChunk};
    }

    // Computes the decays of head h with one warp: two steps per lane (one if a chunk has 32).
    static BSM_DEVICE void compute(const Params& params, const Chunk<S>& chunk, int h,
                                   const Head& own) {
        constexpr int kOwn = S::kChunk / 32;
        const bool exists = h < params.n_heads;
        const int of_direction = chunk.scan.direction * params.n_heads + h;
        const float bias = exists ? params.dt_bias[of_direction] : 0;
        const float A = exists ? params.A[of_direction] : 0;
        float dt[kOwn];
        double sum[kOwn];
        BSM_UNROLL
        for (int i = 0; i < kOwn; ++i) {
            const int row = lane_index() * kOwn + i;
            // Steps past the end neither decay nor feed the state.
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
            const double feed = total - (dt[i] == 0 ? -1e30f : log2f(dt[i]));
            own.sum()[row] = static_cast<float>(total);
            own.feed()[row] = static_cast<float>(feed);
            own.from_start()[row] = device::exp2_fast(static_cast<float>(total));
            own.to_end()[row] = dt[i] * device::exp2_fast(static_cast<float>(last - total));
            if constexpr (S::kWide) {
                own.sum_rest()[row] = static_cast<float>(total - static_cast<float>(total));
                own.feed_rest()[row] = static_cast<float>(feed - static_cast<float>(feed));
            }
        }
    }
};

}  // namespace bsm
