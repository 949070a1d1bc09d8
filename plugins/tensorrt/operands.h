// The operator's attributes and its tensors' shapes and types, checked before anything is computed.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>

namespace bsm {

constexpr const char* kName = "BiMamba2Scan";
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "bsm";

// Inputs in the operator's order; where TensorRT numbers inputs and outputs together, y follows.
enum Tensor : int32_t { kZxbcdt, kConvWeight, kConvBias, kDtBias, kA, kD, kInputs, kY = kInputs };

constexpr int32_t kTaps = 4;  // d_conv

struct Attributes {
    int32_t n_heads;
    int32_t d_state;
    float eps;
};

// Sizes of one call; -1 if still unknown while an engine is built.
struct Sizes {
    int64_t n_sequences;
    int64_t length;
    int32_t headdim;
};

// Each `check_` function logs one sentence that names what does not fit, and returns false.

bool check_attributes(const nvinfer1::PluginFieldCollection* fields,
                      Attributes* attributes) noexcept;

bool check_count(int32_t n_inputs, int32_t n_outputs) noexcept;

// Checks that the types of all inputs match.
bool check_types(const nvinfer1::DataType* types) noexcept;

// Checks that the shapes of all inputs and the attributes match; a size of -1 matches anything.
bool check_shapes(const Attributes& attributes, const nvinfer1::Dims* shapes,
                  Sizes* sizes) noexcept;

// Whether a tensor may have this type, given the type of zxbcdt.
bool type_fits(int32_t tensor, nvinfer1::DataType type, nvinfer1::DataType zxbcdt) noexcept;

}  // namespace bsm
