#include "plugin.h"

#include <algorithm>
#include <cstdio>
#include <new>

#include "bsm_scan.h"
#include "log.h"

namespace bsm {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IDimensionExpr;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

// Sizes that are constants of the network; -1 for the others.
Dims constant_sizes(DimsExprs const& shape) noexcept {
    Dims dims{};
    dims.nbDims = shape.nbDims;
    for (int32_t axis = 0; axis < std::min(shape.nbDims, Dims::MAX_DIMS); ++axis) {
        IDimensionExpr const* const size = shape.d[axis];
        dims.d[axis] = size != nullptr && size->isConstant() ? size->getConstantValue() : -1;
    }
    return dims;
}

int32_t dtype_of(DataType type) noexcept {
    return type == DataType::kFLOAT ? BSM_FLOAT32
                                    : (type == DataType::kHALF ? BSM_FLOAT16 : BSM_BFLOAT16);
}

bool succeeded(int status, char const* what) noexcept {
    if (status == BSM_OK) return true;
    char const* const detail = status == BSM_CUDA_ERROR ? bsm_scan_cuda_error() : "";
    log_error("%s: %s%s%s", what, bsm_scan_status_text(status), *detail ? ": " : "", detail);
    return false;
}

// What checks look at.
struct Inputs {
    explicit Inputs(PluginTensorDesc const* inputs) noexcept {
        for (int32_t i = 0; i < kINPUTS; ++i) shapes[i] = inputs[i].dims, types[i] = inputs[i].type;
    }
    // Those of a build: sizes that it has not fixed are -1.
    explicit Inputs(DynamicPluginTensorDesc const* inputs) noexcept {
        for (int32_t i = 0; i < kINPUTS; ++i) {
            shapes[i] = inputs[i].desc.dims, types[i] = inputs[i].desc.type;
        }
    }
    Dims shapes[kINPUTS];
    DataType types[kINPUTS];
};

// Checks shapes and types that are all known; fills everything but pointers.
bool describe(Attributes const& attributes, Inputs const& inputs, BsmScan* scan) noexcept {
    Sizes sizes{};
    if (!check_types(inputs.types) || !check_shapes(attributes, inputs.shapes, &sizes)) {
        return false;
    }
    if (sizes.n_sequences < 0 || sizes.length < 0 || sizes.headdim < 0) {
        log_error("zxbcdt %s has a size that is not known", ShapeText(inputs.shapes[kZXBCDT]).text);
        return false;
    }
    *scan = BsmScan{};
    scan->size = sizeof(BsmScan);
    scan->n_sequences = sizes.n_sequences;
    scan->length = sizes.length;
    scan->n_heads = attributes.n_heads;
    scan->headdim = sizes.headdim;
    scan->d_state = attributes.d_state;
    scan->d_conv = kTAPS;
    scan->eps = attributes.eps;
    scan->dtype = dtype_of(inputs.types[kZXBCDT]);
    return true;
}

// For the largest shapes that the engine is built for; 0 for empty ones.
bool find_workspace(Attributes const& attributes, DynamicPluginTensorDesc const* inputs,
    size_t* bytes) noexcept {
    Inputs largest(inputs);
    for (int32_t i = 0; i < kINPUTS; ++i) largest.shapes[i] = inputs[i].max;
    BsmScan scan;
    if (!describe(attributes, largest, &scan)) return false;
    if (scan.n_sequences == 0 || scan.length == 0) return true;
    return succeeded(bsm_scan_workspace(&scan, bytes), "no workspace size");
}

}  // namespace

ScanPlugin::ScanPlugin(Attributes const& attributes) noexcept
    : attributes_(attributes),
      fields_{{"n_heads", &attributes_.n_heads, PluginFieldType::kINT32, 1},
          {"d_state", &attributes_.d_state, PluginFieldType::kINT32, 1},
          {"eps", &attributes_.eps, PluginFieldType::kFLOAT32, 1}},
      collection_{3, fields_} {
    std::snprintf(summary_, sizeof summary_, "n_heads=%d,d_state=%d,eps=%.9g", attributes_.n_heads,
        attributes_.d_state, attributes_.eps);
}

nvinfer1::IPluginCapability* ScanPlugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME:
            return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

nvinfer1::IPluginV3* ScanPlugin::clone() noexcept {
    auto* const copy = new (std::nothrow) ScanPlugin(attributes_);
    if (copy == nullptr) log_error("out of memory");
    return copy;
}

nvinfer1::IPluginV3* ScanPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
    return clone();
}

nvinfer1::PluginFieldCollection const* ScanPlugin::getFieldsToSerialize() noexcept {
    return &collection_;
}

int32_t ScanPlugin::getOutputDataTypes(
    DataType* outputs, int32_t n_outputs, DataType const* inputs, int32_t n_inputs) const noexcept {
    if (!check_count(n_inputs, n_outputs) || !check_types(inputs)) return 1;
    outputs[0] = inputs[kZXBCDT];
    return 0;
}

int32_t ScanPlugin::getOutputShapes(DimsExprs const* inputs, int32_t n_inputs, DimsExprs const*,
    int32_t, DimsExprs* outputs, int32_t n_outputs, nvinfer1::IExprBuilder& builder) noexcept {
    if (!check_count(n_inputs, n_outputs)) return 1;
    Dims shapes[kINPUTS];
    std::transform(inputs, inputs + kINPUTS, shapes, constant_sizes);
    Sizes sizes{};
    if (!check_shapes(attributes_, shapes, &sizes)) return 1;
    // 2 I = (2 W - 4 S - 2 H) / 2
    DimsExprs const& zxbcdt = inputs[kZXBCDT];
    IDimensionExpr const* const rest =
        builder.constant(4 * int64_t{attributes_.d_state} + 2 * int64_t{attributes_.n_heads});
    IDimensionExpr const* const inner =
        rest ? builder.operation(DimensionOperation::kSUB, *zxbcdt.d[2], *rest) : nullptr;
    IDimensionExpr const* const two = builder.constant(2);
    IDimensionExpr const* const features =
        inner && two ? builder.operation(DimensionOperation::kFLOOR_DIV, *inner, *two) : nullptr;
    if (features == nullptr) {
        log_error("TensorRT cannot express the shape of y for zxbcdt %s",
            ShapeText(shapes[kZXBCDT]).text);
        return 1;
    }
    outputs[0].nbDims = 3;
    outputs[0].d[0] = zxbcdt.d[0];
    outputs[0].d[1] = zxbcdt.d[1];
    outputs[0].d[2] = features;
    return 0;
}

bool ScanPlugin::supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors,
    int32_t n_inputs, int32_t n_outputs) noexcept {
    if (!check_count(n_inputs, n_outputs) || position < 0 || position > kY) return false;
    PluginTensorDesc const& tensor = tensors[position].desc;
    return tensor.format == nvinfer1::TensorFormat::kLINEAR &&
           type_fits(position, tensor.type, tensors[kZXBCDT].desc.type);
}

int32_t ScanPlugin::configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t n_inputs,
    DynamicPluginTensorDesc const*, int32_t n_outputs) noexcept {
    if (!check_count(n_inputs, n_outputs)) return 1;
    Inputs const given(inputs);
    Sizes sizes{};
    size_t bytes = 0;  // a builder that asks for them takes 0 for an answer, not for a failure
    return check_types(given.types) && check_shapes(attributes_, given.shapes, &sizes) &&
            find_workspace(attributes_, inputs, &bytes) ? 0 : 1;
}

size_t ScanPlugin::getWorkspaceSize(DynamicPluginTensorDesc const* inputs, int32_t n_inputs,
    DynamicPluginTensorDesc const*, int32_t n_outputs) const noexcept {
    size_t bytes = 0;
    bool const known =
        check_count(n_inputs, n_outputs) && find_workspace(attributes_, inputs, &bytes);
    return known ? bytes : 0;
}

int32_t ScanPlugin::onShapeChange(PluginTensorDesc const* inputs, int32_t n_inputs,
    PluginTensorDesc const*, int32_t n_outputs) noexcept {
    BsmScan scan;
    return check_count(n_inputs, n_outputs) && describe(attributes_, Inputs(inputs), &scan) ? 0 : 1;
}

int32_t ScanPlugin::enqueue(PluginTensorDesc const* input_tensors, PluginTensorDesc const*,
    void const* const* inputs, void* const* outputs, void* workspace,
    cudaStream_t stream) noexcept {
    BsmScan scan;
    if (!describe(attributes_, Inputs(input_tensors), &scan)) return 1;
    if (scan.n_sequences == 0 || scan.length == 0) return 0;
    scan.zxbcdt = inputs[kZXBCDT];
    scan.conv_weight = inputs[kCONV_WEIGHT];
    scan.conv_bias = inputs[kCONV_BIAS];
    scan.dt_bias = static_cast<float const*>(inputs[kDT_BIAS]);
    scan.A = static_cast<float const*>(inputs[kA]);
    scan.D = static_cast<float const*>(inputs[kD]);
    scan.y = outputs[0];
    size_t bytes = 0;
    if (!succeeded(bsm_scan_workspace(&scan, &bytes), "no workspace size")) return 1;
    scan.workspace = workspace;
    scan.workspace_bytes = bytes;  // TensorRT provides those of the largest shapes
    return succeeded(bsm_scan_enqueue(&scan, stream), "not run") ? 0 : 1;
}

}  // namespace bsm
