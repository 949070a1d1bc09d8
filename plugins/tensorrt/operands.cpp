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

constexpr char const* kNAMES[kINPUTS] = {"zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A", "D"};
constexpr int32_t kMAX_HEADS = 64;

PluginField const* find_field(
    nvinfer1::PluginFieldCollection const* fields, char const* name) noexcept {
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
        PluginField const& field = fields->fields[i];
        if (field.name != nullptr && std::strcmp(field.name, name) == 0) return &field;
    }
    return nullptr;
}

// One number: `size` bytes of the type that ONNX attributes of this kind arrive in.
bool read_field(nvinfer1::PluginFieldCollection const* fields, char const* name,
    PluginFieldType type, void* value, size_t size) noexcept {
    PluginField const* const field = find_field(fields, name);
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

bool fits(Dims const& found, Dims const& expected) noexcept {
    if (found.nbDims != expected.nbDims) return false;
    for (int32_t axis = 0; axis < found.nbDims; ++axis) {
        bool const known = found.d[axis] >= 0 && expected.d[axis] >= 0;
        if (known && found.d[axis] != expected.d[axis]) return false;
    }
    return true;
}

// Channels of a head from the width of zxbcdt, 2 (2 I + 2 S + H).
bool find_headdim(Attributes const& attributes, Dims const& zxbcdt, int32_t* headdim) noexcept {
    int64_t const heads = attributes.n_heads, states = attributes.d_state;
    int64_t const inner4 = zxbcdt.d[2] - 4 * states - 2 * heads;
    if (inner4 < 1 || inner4 % (4 * heads) != 0) {
        log_error("zxbcdt %s has %lld features, which is not 2 * (2 d_inner + 2 * %d + %d) for a "
                  "d_inner that n_heads = %d divides",
            ShapeText(zxbcdt).text, static_cast<long long>(zxbcdt.d[2]), attributes.d_state,
            attributes.n_heads, attributes.n_heads);
        return false;
    }
    int64_t const channels = inner4 / (4 * heads);
    if (channels != 32 && channels != 64) {
        log_error("zxbcdt %s has heads of %lld channels for n_heads = %d and d_state = %d: the "
                  "kernel takes 32 or 64",
            ShapeText(zxbcdt).text, static_cast<long long>(channels), attributes.n_heads,
            attributes.d_state);
        return false;
    }
    *headdim = static_cast<int32_t>(channels);
    return true;
}

}  // namespace

bool check_attributes(
    nvinfer1::PluginFieldCollection const* fields, Attributes* attributes) noexcept {
    Attributes found{};
    if (!read_field(fields, "n_heads", PluginFieldType::kINT32, &found.n_heads, sizeof(int32_t)) ||
        !read_field(fields, "d_state", PluginFieldType::kINT32, &found.d_state, sizeof(int32_t)) ||
        !read_field(fields, "eps", PluginFieldType::kFLOAT32, &found.eps, sizeof(float))) {
        return false;
    }
    if (found.n_heads < 1 || found.n_heads > kMAX_HEADS) {
        log_error("attribute n_heads must be 1 to %d, not %d", kMAX_HEADS, found.n_heads);
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
    if (n_inputs == kINPUTS && n_outputs == 1) return true;
    log_error("it takes %d inputs (zxbcdt, conv_weight, conv_bias, dt_bias, A, D) and has one "
              "output, not %d and %d",
        kINPUTS, n_inputs, n_outputs);
    return false;
}

bool type_fits(int32_t tensor, DataType type, DataType zxbcdt) noexcept {
    switch (tensor) {
        case kZXBCDT:
            return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
        case kCONV_WEIGHT:
        case kCONV_BIAS:
        case kY: return type == zxbcdt;
        default: return type == DataType::kFLOAT;
    }
}

bool check_types(DataType const* types) noexcept {
    if (!type_fits(kZXBCDT, types[kZXBCDT], types[kZXBCDT])) {
        log_error("zxbcdt must be float32, float16 or bfloat16, not %s", type_name(types[kZXBCDT]));
        return false;
    }
    for (int32_t input = kCONV_WEIGHT; input < kINPUTS; ++input) {
        if (type_fits(input, types[input], types[kZXBCDT])) continue;
        bool const follows = input == kCONV_WEIGHT || input == kCONV_BIAS;
        log_error("%s must be %s%s, not %s", kNAMES[input],
            type_name(follows ? types[kZXBCDT] : DataType::kFLOAT), follows ? " as zxbcdt is" : "",
            type_name(types[input]));
        return false;
    }
    return true;
}

bool check_shapes(Attributes const& attributes, Dims const* shapes, Sizes* sizes) noexcept {
    Dims const& zxbcdt = shapes[kZXBCDT];
    if (zxbcdt.nbDims != 3) {
        log_error("zxbcdt must be (N, L, 2 W), not %s", ShapeText(zxbcdt).text);
        return false;
    }
    int32_t headdim = -1;
    if (zxbcdt.d[2] >= 0 && !find_headdim(attributes, zxbcdt, &headdim)) return false;
    int64_t const heads = attributes.n_heads;
    int64_t const mixed = headdim < 0 ? -1 : heads * headdim + 2 * int64_t{attributes.d_state};
    Dims const expected[kINPUTS] = {zxbcdt, shape(2, mixed, kTAPS), shape(2, mixed),
        shape(2, heads), shape(2, heads), shape(2, heads)};
    for (int32_t input = kCONV_WEIGHT; input < kINPUTS; ++input) {
        if (fits(shapes[input], expected[input])) continue;
        log_error("%s must be %s for zxbcdt %s with n_heads = %d and d_state = %d, not %s",
            kNAMES[input], ShapeText(expected[input]).text, ShapeText(zxbcdt).text,
            attributes.n_heads, attributes.d_state, ShapeText(shapes[input]).text);
        return false;
    }
    *sizes = Sizes{zxbcdt.d[0], zxbcdt.d[1], headdim};
    return true;
}

}  // namespace bsm
