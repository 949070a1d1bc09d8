// What the operator takes: attributes, shapes and types, checked before anything is computed.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>

namespace bsm {

constexpr char const* kNAME = "BiMamba2Scan";
constexpr char const* kVERSION = "1";
constexpr char const* kNAMESPACE = "bsm";

// Inputs in the operator's order; the output follows them where TensorRT numbers both.
enum Tensor : int32_t {
    kZXBCDT,
    kCONV_WEIGHT,
    kCONV_BIAS,
    kDT_BIAS,
    kA,
    kD,
    kINPUTS,
    kY = kINPUTS
};

constexpr int32_t kTAPS = 4;  // d_conv

struct Attributes {
    int32_t n_heads;
    int32_t d_state;
    float eps;
};

// Sizes of one call; -1 where a build has not fixed them yet.
struct Sizes {
    int64_t n_sequences;
    int64_t length;
    int32_t headdim;
};

// All `check_` functions return false after logging one sentence that names what does not fit.

bool check_attributes(
    nvinfer1::PluginFieldCollection const* fields, Attributes* attributes) noexcept;

bool check_count(int32_t n_inputs, int32_t n_outputs) noexcept;

// The types of all inputs against each other.
bool check_types(nvinfer1::DataType const* types) noexcept;

// The shapes of all inputs against each other and the attributes; sizes of -1 fit anything.
bool check_shapes(
    Attributes const& attributes, nvinfer1::Dims const* shapes, Sizes* sizes) noexcept;

// Whether a tensor may have this type, given that of zxbcdt.
bool type_fits(int32_t tensor, nvinfer1::DataType type, nvinfer1::DataType zxbcdt) noexcept;

}  // namespace bsm
