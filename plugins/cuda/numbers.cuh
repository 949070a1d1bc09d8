// The element types: conversion of 16 bytes of them to float32 and back, and the functions that are
// cheaper where a type has less precision.
#pragma once

#include "device.cuh"

namespace bsm {

struct Float16 {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};

using device::Bytes16;

template <class T>
constexpr int kPerUnit = 16 / sizeof(T);  // elements in a unit of 16 bytes

BSM_DEVICE float to_float(float v) { return v; }
BSM_DEVICE float to_float(Float16 v) { return device::float_of_f16(v.bits); }
BSM_DEVICE float to_float(BFloat16 v) { return device::bits_to_float(uint32_t{v.bits} << 16); }

// Converts two neighbouring elements to float32, and back with rounding. float16 saturates.
template <class T>
struct Pair;

template <>
struct Pair<float> {
    static constexpr int kWords = 2;
    static BSM_DEVICE void unpack(const uint32_t* word, float (&v)[2]) {
        v[0] = device::bits_to_float(word[0]);
        v[1] = device::bits_to_float(word[1]);
    }
    static BSM_DEVICE void pack(float low, float high, uint32_t* word) {
        word[0] = device::float_to_bits(low);
        word[1] = device::float_to_bits(high);
    }
};
template <>
struct Pair<Float16> {
    static constexpr int kWords = 1;
    static BSM_DEVICE void unpack(const uint32_t* word, float (&v)[2]) {
        v[0] = device::float_of_f16(static_cast<uint16_t>(word[0]));
        v[1] = device::float_of_f16(static_cast<uint16_t>(word[0] >> 16));
    }
    static BSM_DEVICE void pack(float low, float high, uint32_t* word) {
        word[0] = device::pack_f16(low, high);
    }
};
template <>
struct Pair<BFloat16> {
    static constexpr int kWords = 1;
    static BSM_DEVICE void unpack(const uint32_t* word, float (&v)[2]) {
        v[0] = device::bits_to_float(word[0] << 16);
        v[1] = device::bits_to_float(word[0] & 0xffff0000u);
    }
    static BSM_DEVICE void pack(float low, float high, uint32_t* word) {
        word[0] = device::pack_bf16(low, high);
    }
};

template <class T>
BSM_DEVICE void load_pair(const T* from, float (&v)[2]) {
    uint32_t word[Pair<T>::kWords];
    BSM_UNROLL
    for (int i = 0; i < Pair<T>::kWords; ++i) word[i] = reinterpret_cast<const uint32_t*>(from)[i];
    Pair<T>::unpack(word, v);
}
template <class T>
BSM_DEVICE void store_pair(T* to, float low, float high) {
    uint32_t word[Pair<T>::kWords];
    Pair<T>::pack(low, high, word);
    BSM_UNROLL
    for (int i = 0; i < Pair<T>::kWords; ++i) reinterpret_cast<uint32_t*>(to)[i] = word[i];
}

constexpr float kLog2e = 1.44269504088896340736f;

// x sigmoid(x). 16-bit types take one tanh, which is half as many special functions, with an error
// up to |x| 2^-12; float32 takes exp and a reciprocal.
template <class T>
BSM_DEVICE float silu(float x) {
    const float half = 0.5f * x;
    return half + half * device::tanh_fast(half);
}
template <>
BSM_DEVICE float silu<float>(float x) {
    return x * device::reciprocal(1 + device::exp2_fast(-kLog2e * x));
}

BSM_DEVICE float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }

}  // namespace bsm
