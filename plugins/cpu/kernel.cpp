// The scan of one sequence in one direction, compiled once for each instruction set.
//
// A sequence is processed in chunks. In a chunk with convolved inputs X, B and C, step sizes dt,
// and s_i the sum of rate * dt up to step i,
//
//     M_ij = (C_i . B_j) 2^(s_i - s_j) dt_j for j <= i, + D on the diagonal
//     Y    = M X + 2^(s_i) (C h)                          h: the state before the chunk
//     h'   = 2^(s_last) h + B^T (2^(s_last - s_j) dt_j X)
//
// All heads share C B^T. Inputs are read row by row over their whole width, as they lie in memory;
// intermediate tiles stay in the core's own cache.
#include <initializer_list>

#include "problem.h"
#include "product.h"
#include "vector.h"

namespace bsm_cpu {
namespace BSM_ISA {
namespace {

constexpr int kShort = 64;  // sequences of up to 64 steps are one chunk, without a state
constexpr int kBlock = 8;   // steps that are convolved together
constexpr int kChunk = 64;  // steps; shorter chunks mean less work, longer ones larger products

constexpr int padded(int n) { return (n + kWidth - 1) / kWidth * kWidth; }

// Sizes of a thread's tiles, rounded up to whole vectors, and their place in its scratch memory.
struct Tiles {
    explicit Tiles(const Problem& p)
        : steps(padded(p.length <= kShort ? static_cast<int>(p.length) : kChunk)),
          channels(padded(p.headdim)),
          states(padded(p.d_state)),
          heads(padded(p.n_heads)) {}

    int steps, channels, states, heads;
    size_t used = 0;

    float* take(float*& scratch, size_t floats) {
        float* tile = scratch;
        scratch += floats;
        used += floats;
        return tile;
    }
};

class Sequence {
public:
    Sequence(const Problem& p, float* scratch) : p_(p), t_(p) {
        const size_t steps = t_.steps, width = padded(p.d_inner());
        x_ = t_.take(scratch, p.n_heads * steps * t_.channels);
        b_ = t_.take(scratch, steps * t_.states);
        c_ = t_.take(scratch, steps * t_.states);
        b_columns_ = t_.take(scratch, t_.states * steps);
        products_ = t_.take(scratch, steps * steps);
        mask_ = t_.take(scratch, steps * steps);
        step_ = t_.take(scratch, p.n_heads * steps);
        sum_ = t_.take(scratch, p.n_heads * steps);
        rest_ = t_.take(scratch, p.n_heads * steps);
        decay_ = t_.take(scratch, steps);
        last_ = t_.take(scratch, steps > static_cast<size_t>(t_.states) ? steps : t_.states);
        weighted_ = t_.take(scratch, steps * t_.channels);
        y_row_ = p.n_heads * t_.channels + kWidth;  // rows a power of two apart share cache sets
        y_ = t_.take(scratch, steps * y_row_);
        gated_ = t_.take(scratch, width);
        totals_ = reinterpret_cast<double*>(t_.take(scratch, 2 * size_t(t_.heads)));
        if (p.length > kShort)
            state_ = t_.take(scratch, p.n_heads * size_t(t_.states) * t_.channels);
    }

    size_t floats() const { return t_.used; }

    void run(int64_t sequence, int direction) {
        const int64_t width = p_.width(), row = 2 * width, out = 2 * p_.d_inner();
        const int64_t start = sequence * p_.length + (direction ? p_.length - 1 : 0);
        direction_ = direction;
        stride_ = direction ? -row : row;
        out_stride_ = direction ? -out : out;
        in_ = p_.zxbcdt + start * row + direction * width;
        out_ = p_.y + start * out + direction * p_.d_inner();
        const int chunk = p_.length <= kShort ? static_cast<int>(p_.length) : kChunk;
        for (int64_t first = 0; first < p_.length; first += chunk) {
            const int64_t left = p_.length - first;
            const int steps = static_cast<int>(left < chunk ? left : chunk);
            inputs(first, steps);
            heads(steps, first > 0, left > steps);
            outputs(first, steps);
        }
        finish_stores();
    }

private:
    const float* in(int64_t step) const { return in_ + step * stride_; }

    // Convolution, SiLU and step sizes of a chunk.
    void inputs(int64_t first, int steps) {
        const int inner = p_.d_inner(), channels = p_.d_conv_channels();
        const float* taps = p_.taps + int64_t(direction_) * p_.d_conv * channels;
        const float* bias = p_.conv_bias + int64_t(direction_) * channels;
        for (float* tile : {step_, sum_, rest_}) {
            for (int h = 0; h < p_.n_heads * t_.steps; h += kWidth) store(tile + h, V{});
        }
        for (int h = 0; h < p_.n_heads; ++h) totals_[h] = 0;
        for (int i = 0, rows; i < steps; i += rows) {
            const int64_t step = first + i;
            rows = step == 0 && p_.d_conv > 1 ? p_.d_conv - 1 : kBlock;  // rows that lack taps
            if (rows > steps - i) rows = steps - i;
            for (int h = 0; h < p_.n_heads; ++h) {
                float* x = x_ + (size_t(h) * t_.steps + i) * t_.channels;
                convolve(step, rows, h * p_.headdim, p_.headdim, taps, bias, x, t_.channels);
            }
            float *b = b_ + size_t(i) * t_.states, *c = c_ + size_t(i) * t_.states;
            convolve(step, rows, inner, p_.d_state, taps, bias, b, t_.states);
            convolve(step, rows, inner + p_.d_state, p_.d_state, taps, bias, c, t_.states);
            for (int row = 0; row < rows; ++row) dt(step + row, i + row);
        }
        for (int i = 0; i < t_.steps; ++i) {
            for (int s = 0; s < p_.d_state; ++s) {
                b_columns_[size_t(s) * t_.steps + i] =
                    i < steps ? b_[size_t(i) * t_.states + s] : 0.0f;
            }
        }
    }

    // Convolves `count` channels from `channel` on, at `rows` steps from `step` on; the rest of the
    // last vector becomes 0.
    BSM_INLINE void convolve(int64_t step, int rows, int channel, int count, const float* taps,
                             const float* bias, float* to, int to_row) const {
        int done = 0;
        if (p_.d_conv == 4 && step >= 3) {  // four taps, none before the sequence
            for (; done + kWidth <= count; done += kWidth) {
                four_taps(step, rows, channel + done, taps, bias, to + done, to_row);
            }
        }
        for (; done < count; done += kWidth) {
            const int part = count - done < kWidth ? count - done : kWidth;
            for (int row = 0; row < rows; ++row) {
                const V sum = part == kWidth
                                  ? any_taps(step + row, channel + done, kWidth, taps, bias)
                                  : any_taps(step + row, channel + done, part, taps, bias);
                store(to + row * to_row + done, silu(sum));
            }
        }
    }

    // One vector of channels; weights and the last three inputs stay in registers.
    BSM_INLINE void four_taps(int64_t step, int rows, int channel, const float* taps,
                              const float* bias, float* to, int to_row) const {
        const int width = p_.d_conv_channels();
        const float* from = in(step) + p_.d_inner() + channel;
        const V w0 = load(taps + channel), w1 = load(taps + width + channel);
        const V w2 = load(taps + 2 * width + channel), w3 = load(taps + 3 * width + channel);
        const V b = load(bias + channel);
        V x0 = load(from - 3 * stride_), x1 = load(from - 2 * stride_), x2 = load(from - stride_);
        for (int row = 0; row < rows; ++row) {
            const V x3 = load(from + row * stride_);
            store(to + row * to_row, silu(b + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3));
            x0 = x1, x1 = x2, x2 = x3;
        }
    }

    BSM_INLINE V any_taps(int64_t step, int channel, int part, const float* taps,
                          const float* bias) const {
        V sum = load_part(bias + channel, part);
        for (int k = 0; k < p_.d_conv; ++k) {
            const int64_t from = step - p_.d_conv + 1 + k;
            if (from < 0) continue;  // before the sequence
            sum += load_part(taps + int64_t(k) * p_.d_conv_channels() + channel, part) *
                   load_part(in(from) + p_.d_inner() + channel, part);
        }
        return sum;
    }

    // Step sizes of all heads and the running sums of their decays. The sums reach some hundreds,
    // but only their differences matter, so they are made in double and kept as two floats.
    void dt(int64_t step, int i) {
        const int H = p_.n_heads;
        const float* raw = in(step) + 2 * p_.d_inner() + 2 * p_.d_state;
        for (int h = 0; h < H; h += kWidth) {
            const int part = H - h < kWidth ? H - h : kWidth;
            const V dt = softplus(load_part(raw + h, part) +
                                  load_part(p_.dt_bias + direction_ * H + h, part));
            for (int lane = 0; lane < part; ++lane) {
                double& total = totals_[h + lane];
                total += double(dt[lane]) * p_.rate[direction_ * H + h + lane];
                const size_t at = size_t(h + lane) * t_.steps + i;
                step_[at] = dt[lane];
                sum_[at] = static_cast<float>(total);
                rest_[at] = static_cast<float>(total - sum_[at]);
            }
        }
    }

    void heads(int steps, bool has_state, bool keeps_state) {
        const Operand c{c_, t_.states, 1};
        for (int i = 0; i < steps; i += kTileRows) {  // the lower triangle
            const int rows = steps - i < kTileRows ? steps - i : kTileRows;
            const Operand from{c.data + i * c.row, c.row, c.column};
            product(rows, padded(i + rows), p_.d_state, from, b_columns_, t_.steps,
                    {products_ + size_t(i) * t_.steps, t_.steps}, nullptr);
        }
        for (int h = 0; h < p_.n_heads; ++h) {
            const float* x = x_ + size_t(h) * t_.steps * t_.channels;
            const float* sum = sum_ + size_t(h) * t_.steps;
            const float* rest = rest_ + size_t(h) * t_.steps;
            const float* step = step_ + size_t(h) * t_.steps;
            float* state = state_ ? state_ + size_t(h) * t_.states * t_.channels : nullptr;
            const Result y{y_ + h * t_.channels, y_row_};
            decay_mask(steps, sum, rest, step, p_.D[direction_ * p_.n_heads + h]);
            if (has_state) {
                for (int i = 0; i < t_.steps; i += kWidth) store(decay_ + i, exp2(load(sum + i)));
                product(steps, t_.channels, p_.d_state, c, state, t_.channels, y, nullptr);
            }
            product(steps, t_.channels, steps, {mask_, t_.steps, 1}, x, t_.channels, y,
                    has_state ? decay_ : nullptr, true);
            if (keeps_state) update(steps, x, sum, rest, step, state, has_state);
        }
    }

    // The decay from each step of a vector, the first of them step j, to step i.
    BSM_INLINE V decay(const float* sum, const float* rest, int j, int i) const {
        const V power = (sum[i] - load(sum + j)) + (rest[i] - load(rest + j));
        return exp2(power > 0.0f ? V{} : power);  // above 0 by rounding, or above the diagonal
    }

    void decay_mask(int steps, const float* sum, const float* rest, const float* step, float D) {
        for (int i = 0; i < steps; ++i) {
            const float* row = products_ + size_t(i) * t_.steps;
            float* mask = mask_ + size_t(i) * t_.steps;
            const int end = i + kTileRows < t_.steps ? i + kTileRows : t_.steps;
            for (int j = 0; j < end; j += kWidth) {
                const V value = load(row + j) * decay(sum, rest, j, i) * load(step + j);
                store(mask + j, lanes() + j <= i ? value : V{});
            }
            mask[i] += D;
        }
    }

    void update(int steps, const float* x, const float* sum, const float* rest, const float* step,
                float* state, bool has_state) {
        const int last = steps - 1;
        for (int j = 0; j < steps; j += kWidth) {
            store(last_ + j, decay(sum, rest, j, last) * load(step + j));
        }
        for (int j = 0; j < steps; ++j) {
            const float* from = x + size_t(j) * t_.channels;
            float* to = weighted_ + size_t(j) * t_.channels;
            for (int p = 0; p < t_.channels; p += kWidth) store(to + p, load(from + p) * last_[j]);
        }
        const V decay = exp2(splat(sum[last]));
        for (int s = 0; s < t_.states; s += kWidth) store(last_ + s, decay);
        product(p_.d_state, t_.channels, steps, {b_, 1, t_.states}, weighted_, t_.channels,
                {state, t_.channels}, has_state ? last_ : nullptr);
    }

    // Applies gate and norm, row by row.
    void outputs(int64_t first, int steps) {
        const int inner = p_.d_inner();
        const bool aligned = reinterpret_cast<uintptr_t>(out_) % (4 * kWidth) == 0 &&
                             out_stride_ % kWidth == 0 && inner % kWidth == 0;
        for (int i = 0; i < steps; ++i) {
            const V squares = gate(in(first + i), y_ + size_t(i) * y_row_);
            const float factor = 1.0f / __builtin_sqrtf(sum(squares) / inner + p_.eps);
            float* to = out_ + (first + i) * out_stride_;
            int c = 0;
            if (aligned) {
                for (; c < inner; c += kWidth) store_away(to + c, load(gated_ + c) * factor);
                continue;
            }
            for (; c + kWidth <= inner; c += kWidth) store(to + c, load(gated_ + c) * factor);
            if (c < inner) store_part(to + c, load(gated_ + c) * factor, inner - c);
        }
    }

    // Writes y * SiLU(z) of a row to gated_ and returns the sums of its squares, one per lane.
    V gate(const float* z, const float* y) {
        const int P = p_.headdim;
        V squares{};
        for (int h = 0; h < p_.n_heads; ++h, z += P, y += t_.channels) {
            float* to = gated_ + h * P;
            int p = 0;
            for (; p + kWidth <= P; p += kWidth) {
                const V value = load(y + p) * silu(load(z + p));
                squares += value * value;
                store(to + p, value);
            }
            if (p < P) {  // beyond the head, y is 0
                const V value = load(y + p) * silu(load_part(z + p, P - p));
                squares += value * value;
                store_part(to + p, value, P - p);
            }
        }
        return squares;
    }

    const Problem& p_;
    Tiles t_;
    int direction_ = 0;
    int64_t stride_ = 0, out_stride_ = 0;
    const float* in_ = nullptr;
    float* out_ = nullptr;
    // Tiles; step_, sum_ and rest_ are (H, steps).
    float *x_, *b_, *c_, *b_columns_, *products_, *mask_, *step_, *sum_, *rest_, *decay_, *last_;
    float *weighted_, *y_, *gated_, *state_ = nullptr;
    double* totals_;
    ptrdiff_t y_row_;
};

size_t scratch_floats(const Problem& problem) { return Sequence(problem, nullptr).floats(); }

void scan_sequence(const Problem& problem, int64_t sequence, int direction, float* scratch) {
    Sequence(problem, scratch).run(sequence, direction);
}

}  // namespace

#define BSM_TEXT_OF(name) #name
#define BSM_TEXT(name) BSM_TEXT_OF(name)

extern const Kernel kKernel;
const Kernel kKernel{BSM_TEXT(BSM_ISA), scratch_floats, scan_sequence};

}  // namespace BSM_ISA
}  // namespace bsm_cpu
