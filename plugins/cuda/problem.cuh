// The parameters of a launch, and how its thread blocks divide the work.
//
// Letters: N sequences, L steps, H heads, P channels per head, S state size, I = H P,
// W = 2 I + 2 S + H. A group is the heads that a block processes together.
#pragma once

#include "products.cuh"

namespace bsm {

constexpr int kTaps = 4;  // d_conv

// The sizes of a kernel. The stateful kernel processes sequences of any length chunk by chunk, the
// other one sequences of at most one chunk.
template <class T_, int kHeaddim_, int kDState_, bool kStateful>
struct Shape {
    using T = T_;
    static constexpr bool kWide = sizeof(T) == 4;  // float32: half as much of everything fits
    static constexpr int kHeaddim = kHeaddim_;
    static constexpr int kDState = kDState_;
    static constexpr int kChunk = kWide && kStateful ? 32 : 64;  // steps
    static constexpr int kHeads = kWide ? 1 : 2;                 // in a group
    // Channels of a warp's outputs: wide slabs read less shared memory per product, narrow ones
    // leave more warps, which hide the latency of loads.
    static constexpr int kSlab = kStateful && !kWide ? kHeaddim / 2 : 16;
    static constexpr int kWarpsPerHead = kHeaddim / kSlab;
    static constexpr int kWarps = kHeads * kWarpsPerHead;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kChannels = kHeads * kHeaddim;  // in a group
    // Steps that a thread convolves together: more of them load and unpack a row less often, but
    // take more registers.
    static constexpr int kSteps = kStateful && !kWide ? 8 : 4;
    static constexpr int kRowTiles = kChunk / 16;        // products take 16 steps at a time
};

struct Params {
    const void* zxbcdt;
    const void* conv_weight;
    const void* conv_bias;
    const float* dt_bias;
    const float* A;
    const float* D;
    void* y;
    float* squares;  // (N, L, 2, groups): sums over a group's channels; null: no second kernel
    int64_t first_sequence;  // of this launch
    int64_t length;          // L
    int n_heads;             // H
    int groups;              // ceil(H / heads in a group)
    int groups_per_block;
    int cluster;  // blocks that share the groups of a sequence and direction
    float eps;
    bool aligned;  // rows of zxbcdt start at multiples of 16 bytes
};

// One direction of a sequence, its steps in the order of the scan.
template <class S>
struct Scan {
    using T = typename S::T;

    const T* features;  // of step 0
    T* y;               // of step 0
    float* squares;     // of step 0, if the norm takes two kernels
    int64_t length;
    int stride, stride_y, stride_squares;  // to the next step, elements; negative backwards
    int direction;
    int d_inner;

    // `launch_row` counts the sequences of this launch, both directions of each.
    BSM_DEVICE Scan(const Params& params, int launch_row)
        : length(params.length), direction(launch_row % 2), d_inner(params.n_heads * S::kHeaddim) {
        const int64_t sequence = params.first_sequence + launch_row / 2;
        const int width = 2 * d_inner + 2 * S::kDState + params.n_heads;
        const int sign = direction ? -1 : 1;
        const int64_t step = sequence * length + (direction ? length - 1 : 0);
        const int64_t row = 2 * step + direction;
        features = static_cast<const T*>(params.zxbcdt) + row * width;
        y = static_cast<T*>(params.y) + row * d_inner;
        squares = params.squares + row * params.groups;
        stride = sign * 2 * width;
        stride_y = sign * 2 * d_inner;
        stride_squares = sign * 2 * params.groups;
    }

    // Offsets of z, x, B (followed by C) and dt in the features of a step.
    BSM_DEVICE int z_at() const { return 0; }
    BSM_DEVICE int x_at() const { return d_inner; }
    BSM_DEVICE int B_at() const { return 2 * d_inner; }
    BSM_DEVICE int dt_at() const { return 2 * d_inner + 2 * S::kDState; }
};

// The steps of a scan that a block processes together; row r is step start + r.
template <class S>
struct Chunk {
    Scan<S> scan;
    int64_t start;
    int first;  // first row with features: 0, or -3 if the convolution reaches an earlier chunk
    int rows;   // rows of this chunk that exist; 0 past the end

    BSM_DEVICE Chunk(const Scan<S>& scan_, int64_t start_) : scan(scan_), start(start_) {
        const int64_t left = scan.length - start;
        first = start ? 1 - kTaps : 0;
        rows = left < 0 ? 0 : static_cast<int>(left < S::kChunk ? left : S::kChunk);
    }
    BSM_DEVICE bool has(int row) const { return row >= first && row < rows; }
    BSM_DEVICE const typename S::T* features(int row) const {
        return scan.features + start * scan.stride + row * scan.stride;
    }
    BSM_DEVICE typename S::T* y(int row) const {
        return scan.y + start * scan.stride_y + row * scan.stride_y;
    }
    BSM_DEVICE float& squares(int row, int group) const {
        return scan.squares[start * scan.stride_squares + row * scan.stride_squares + group];
    }
};

// The heads of one group; the last group may have fewer than kHeads.
template <class S>
struct Group {
    int number;
    int first_head;
    int heads;

    BSM_DEVICE Group(const Params& params, int number_)
        : number(number_), first_head(number_ * S::kHeads) {
        const int left = params.n_heads - first_head;
        heads = left < S::kHeads ? left : S::kHeads;
    }
    BSM_DEVICE int first_channel() const { return first_head * S::kHeaddim; }
    BSM_DEVICE int channels() const { return heads * S::kHeaddim; }
    // D of a head in the group, 0 if there is no such head.
    BSM_DEVICE float skip(const Params& params, int direction, int head) const {
        return head < heads ? params.D[direction * params.n_heads + first_head + head] : 0;
    }
};

}  // namespace bsm
