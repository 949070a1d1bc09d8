// Matrices in shared memory.
#pragma once

#include "numbers.cuh"

namespace bsm {

// The index of a unit of 16 bytes in rows of `units`, without padding. Each row permutes its units
// in sets of eight (or all, if it has fewer), so that one unit of eight rows, eight units of one
// row, and the units of a fragment's lanes lie in different banks. Unsigned, because a signed
// division by 2^n takes four instructions.
BSM_DEVICE unsigned unit_index(unsigned row, unsigned unit, unsigned units) {
    const unsigned turn = units < 8 ? units : 8;
    return row * units + (unit ^ (row / (8 / turn) % turn));
}

// Rows of kWidth elements.
template <class T_, int kWidth>
struct Tile {
    using T = T_;
    static constexpr int kUnits = kWidth / kPerUnit<T>;
    static_assert(kUnits == 4 || kUnits % 8 == 0);

    T* data;

    static constexpr size_t bytes(int rows) { return sizeof(T) * kWidth * rows; }

    BSM_DEVICE Bytes16& unit(unsigned row, unsigned unit) const {
        return reinterpret_cast<Bytes16*>(data)[unit_index(row, unit, kUnits)];
    }
    // The address of an element; its neighbours follow it up to the end of its unit.
    BSM_DEVICE T* at(unsigned row, unsigned column) const {
        return reinterpret_cast<T*>(&unit(row, column / kPerUnit<T>)) + column % kPerUnit<T>;
    }
};

}  // namespace bsm
