// C = scale * C + A B for small row-major tiles, the accumulators in registers.
#pragma once

#include "vector.h"

namespace bsm_cpu {
namespace BSM_ISA {

// Rows and vectors of a register tile: kTileRows * kTileVectors accumulators, kTileVectors of B and
// one of A.
constexpr int kTileRows = 6;
#if BSM_WIDTH == 16 || defined(__aarch64__)  // 32 registers
constexpr int kTileVectors = 4;
#else
constexpr int kTileVectors = 2;
#endif

struct Operand {
    const float* data;
    ptrdiff_t row, column;  // strides in floats
};

struct Result {
    float* data;
    ptrdiff_t row;
};

template <int kRows, int kVectors>
inline void tile(int depth, Operand a, const float* b, ptrdiff_t b_row, Result c,
                 const float* scale) {
    V sums[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            sums[r][v] = scale ? load(c.data + r * c.row + v * kWidth) * scale[r] : V{};
        }
    }
    for (int k = 0; k < depth; ++k) {
        V row[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) row[v] = load(b + k * b_row + v * kWidth);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
            const V factor = splat(a.data[r * a.row + k * a.column]);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) sums[r][v] += factor * row[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) store(c.data + r * c.row + v * kWidth, sums[r][v]);
    }
}

template <int kRows>
inline void row_block(int columns, int depth, Operand a, const float* b, ptrdiff_t b_row, Result c,
                      const float* scale) {
    int done = 0;
    for (; done + kTileVectors * kWidth <= columns; done += kTileVectors * kWidth) {
        tile<kRows, kTileVectors>(depth, a, b + done, b_row, {c.data + done, c.row}, scale);
    }
    for (; done < columns; done += kWidth) {
        tile<kRows, 1>(depth, a, b + done, b_row, {c.data + done, c.row}, scale);
    }
}

// Computes rows [0, rows) and columns [0, columns), the latter in whole vectors. `scale` has a
// factor for each row, or is null for C = A B. `triangle`: A is 0 above its diagonal, so row i has
// the depth i + 1, rounded up to a register tile.
inline void product(int rows, int columns, int depth, Operand a, const float* b, ptrdiff_t b_row,
                    Result c, const float* scale, bool triangle = false) {
    for (int i = 0; i < rows; i += kTileRows) {
        const int count = rows - i < kTileRows ? rows - i : kTileRows;
        const int deep = triangle ? i + count : depth;
        const Operand from{a.data + i * a.row, a.row, a.column};
        const Result to{c.data + i * c.row, c.row};
        const float* factors = scale ? scale + i : nullptr;
        switch (count) {
            case 6: row_block<6>(columns, deep, from, b, b_row, to, factors); break;
            case 5: row_block<5>(columns, deep, from, b, b_row, to, factors); break;
            case 4: row_block<4>(columns, deep, from, b, b_row, to, factors); break;
            case 3: row_block<3>(columns, deep, from, b, b_row, to, factors); break;
            case 2: row_block<2>(columns, deep, from, b, b_row, to, factors); break;
            default: row_block<1>(columns, deep, from, b, b_row, to, factors); break;
        }
    }
}

}  // namespace BSM_ISA
}  // namespace bsm_cpu
