#include "operands.h"

#include <cmath>
#include <cstring>

#include "log.h"

namespace bsm {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

constexpr const char* kNames[kInputs] = {"zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A", "D"};
constexpr int32_t kMaxHeads = 64;

const PluginField* find_field(const nvinfer1::PluginFieldCollection* fields,
                              const char* name) noexcept {
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
        const PluginField& field = fields->fields[i];
        if (field.name != nullptr && std::strcmp(field.name, name) == 0) return &field;
    }
    return nullptr;
}

// Reads an attribute that is one number of `type`, `size` bytes long.
bool read_field(const nvinfer1::PluginFieldCollection* fields, const char* name,
                PluginFieldType type, void* value, size_t size) noexcept {
    const PluginField* const field = find_field(fields, name);
    if (field == nullptr || field->data == nullptr || field->length < 1) {
        log_error("attribute %s is missing", name);
        return false;
    }
    if (field->type != type || field->length != 1) {
        log_error("attribute %s must be one %s", name,
                  type == PluginFieldType::kINT32 ? "int32" : "float32");
        return false;
    }
    std::memcpy(value, field->data, size);
    return true;
}

Dims shape(int64_t a, int64_t b) noexcept { return Dims{2, {a, b}}; }
Dims shape(int64_t a, int64_t b, int64_t c) noexcept { return Dims{3, {a, b, c}}; }

bool fits(const Dims& found, const Dims& expected) noexcept {
    if (found.nbDims != expected.nbDims) return false;
    for (int32_t axis = 0; axis < found.nbDims; ++axis) {
        const bool known = found.d[axis] >= 0 && expected.d[axis] >= 0;
        if (known && found.d[axis] != expected.d[axis]) return false;
    }
    return true;
}

// Finds the channels of a head from the width of zxbcdt, 2 (2 I + 2 S + H).
bool find_headdim(const Attributes& attributes, const Dims& zxbcdt, int32_t* headdim) noexcept {
    const int64_t heads = attributes.n_heads, states = attributes.d_state;
    const int64_t inner4 = zxbcdt.d[2] - 4 * states - 2 * heads;
    if (inner4 < 1 || inner4 % (4 * heads) != 0) {
        log_error(
            "zxbcdt %s has %lld features, which is not 2 * (2 d_inner + 2 * %d + %d) for a "
            "d_inner that n_heads = %d divides",
            ShapeText(zxbcdt).text, static_cast<long long>(zxbcdt.d[2]), attributes.d_state,
            attributes.n_heads, attributes.n_heads);
        return false;
    }
    const int64_t channels = inner4 / (4 * heads);
    if (channels != 32 && channels != 64) {
        log_error(
            "zxbcdt %s has heads of %lld channels for n_heads = %d and d_state = %d: the "
            "kernel takes 32 or 64",
            ShapeText(zxbcdt).text, static_cast<long long>(channels), attributes.n_heads,
            attributes.d_state);
        return false;
    }
    *headdim = static_cast<int32_t>(channels);
    return true;
}

}  // namespace

bool check_attributes(const nvinfer1::PluginFieldCollection* fields,
                      Attributes* attributes) noexcept {
    Attributes found{};
    if (!read_field(fields, "n_heads", PluginFieldType::kINT32, &found.n_heads, sizeof(int32_t)) ||
        !read_field(fields, "d_state", PluginFieldType::kINT32, &found.d_state, sizeof(int32_t)) ||
        !read_field(fields, "eps", PluginFieldType::kFLOAT32, &found.eps, sizeof(float))) {
        return false;
    }
    if (found.n_heads < 1 || found.n_heads > kMaxHeads) {
        log_error("attribute n_heads must be 1 to %d, not %d", kMaxHeads, found.n_heads);
        return false;
    }
    if (found.d_state != 32 && found.d_state != 64 && found.d_state != 128) {
        log_error("attribute d_state must be 32, 64 or 128, not %d", found.d_state);
        return false;
    }
    if (!std::isfinite(found.eps) || found.eps < 0) {
        log_error("attribute eps must be a finite number of at least 0, not %g", found.eps);
        return false;
    }
    *attributes = found;
    return true;
}

bool check_count(int32_t n_inputs, int32_t n_outputs) noexcept {
    if (n_inputs == kInputs && n_outputs == 1) return true;
    log_error(
        "it takes %d inputs (zxbcdt, conv_weight, conv_bias, dt_bias, A, D) and has one "
        "output, not %d and %d",
        kInputs, n_inputs, n_outputs);
    return false;
}

bool type_fits(int32_t tensor, DataType type, DataType zxbcdt) noexcept {
    switch (tensor) {
        case kZxbcdt:
            return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
        case kConvWeight:
        case kConvBias:
        case kY: return type == zxbcdt;
        default: return type == DataType::kFLOAT;
    }
}

bool check_types(const DataType* types) noexcept {
    if (!type_fits(kZxbcdt, types[kZxbcdt], types[kZxbcdt])) {
        log_error("zxbcdt must be float32, float16 or bfloat16, not %s", type_name(types[kZxbcdt]));
        return false;
    }
    for (int32_t input = kConvWeight; input < kInputs; ++input) {
        if (type_fits(input, types[input], types[kZxbcdt])) continue;
        const bool follows = input == kConvWeight || input == kConvBias;
        log_error("%s must be %s%s, not %s", kNames[input],
                  type_name(follows ? types[kZxbcdt] : DataType::kFLOAT),
                  follows ? " as zxbcdt is" : "", type_name(types[input]));
        return false;
    }
    return true;
}

bool check_shapes(const Attributes& attributes, const Dims* shapes, Sizes* sizes) noexcept {
    const Dims& zxbcdt = shapes[kZxbcdt];
    if (zxbcdt.nbDims != 3) {
        log_error("zxbcdt must be (N, L, 2 W), not %s", ShapeText(zxbcdt).text);
        return false;
    }
    int32_t headdim = -1;
    if (zxbcdt.d[2] >= 0 && !find_headdim(attributes, zxbcdt, &headdim)) return false;
    const int64_t heads = attributes.n_heads;
    const int64_t mixed = headdim < 0 ? -1 : heads * headdim + 2 * int64_t{attributes.d_state};
    const Dims expected[kInputs] = {zxbcdt,          shape(2, mixed, kTaps), shape(2, mixed),
                                    shape(2, heads), shape(2, heads),        shape(2, heads)};
    for (int32_t input = kConvWeight; input < kInputs; ++input) {
        if (fits(shapes[input], expected[input])) continue;
        log_error("%s must be %s for zxbcdt %s with n_heads = %d and d_state = %d, not %s",
                  kNames[input], ShapeText(expected[input]).text, ShapeText(zxbcdt).text,
                  attributes.n_heads, attributes.d_state, ShapeText(shapes[input]).text);
        return false;
    }
    *sizes = Sizes{zxbcdt.d[0], zxbcdt.d[1], headdim};
    return true;
}

}  // namespace bsm
