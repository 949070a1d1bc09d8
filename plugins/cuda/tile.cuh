// Matrices in shared memory.
#pragma once

#include "numbers.cuh"

namespace bsm {

// Rows of kWidth elements without padding. Units of 16 bytes change places within eight (or as
// many as a row has), by the row, so that eight rows of one unit, eight units of one row, and what
// a fragment's lanes take, lie in different banks.
template <class T_, int kWidth>
struct Tile {
    using T = T_;
    static constexpr int kUnits = kWidth / kPerUnit<T>;
    static constexpr int kTurn = kUnits < 8 ? kUnits : 8;
    static_assert(kTurn == 4 || kTurn == 8);

    T* data;

    static constexpr size_t bytes(int rows) { return sizeof(T) * kWidth * rows; }

    // A unit of 16 bytes. Indices are unsigned because a signed division by 2^n takes four
    // instructions.
    BSM_DEVICE Bytes16& unit(unsigned row, unsigned unit) const {
        const unsigned turned = unit ^ (row / (8 / kTurn) % kTurn);
        return reinterpret_cast<Bytes16*>(data)[row * kUnits + turned];
    }
    // An element; its neighbours follow it to the end of its unit.
    BSM_DEVICE T* at(unsigned row, unsigned column) const {
        return reinterpret_cast<T*>(&unit(row, column / kPerUnit<T>)) + column % kPerUnit<T>;
    }
};

}  // namespace bsm
