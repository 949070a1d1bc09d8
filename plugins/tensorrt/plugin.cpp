#include "plugin.h"

#include <algorithm>
#include <cstdio>
#include <new>

#include "bsm_scan.h"
#include "log.h"

namespace bsm {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IDimensionExpr;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

// Sizes that are constants of the network; -1 for the others.
Dims constant_sizes(const DimsExprs& shape) noexcept {
    Dims dims{};
    dims.nbDims = shape.nbDims;
    for (int32_t axis = 0; axis < std::min(shape.nbDims, Dims::MAX_DIMS); ++axis) {
        const IDimensionExpr* const size = shape.d[axis];
        dims.d[axis] = size != nullptr && size->isConstant() ? size->getConstantValue() : -1;
    }
    return dims;
}

int32_t dtype_of(DataType type) noexcept {
    return type == DataType::kFLOAT ? BSM_FLOAT32
                                    : (type == DataType::kHALF ? BSM_FLOAT16 : BSM_BFLOAT16);
}

bool succeeded(int status, const char* what) noexcept {
    if (status == BSM_OK) return true;
    const char* const detail = status == BSM_CUDA_ERROR ? bsm_scan_cuda_error() : "";
    log_error("%s: %s%s%s", what, bsm_scan_status_text(status), *detail ? ": " : "", detail);
    return false;
}

// Shapes and types of all inputs.
struct Inputs {
    explicit Inputs(const PluginTensorDesc* inputs) noexcept {
        for (int32_t i = 0; i < kInputs; ++i) shapes[i] = inputs[i].dims, types[i] = inputs[i].type;
    }
    // While an engine is built: sizes that are not fixed yet are -1.
    explicit Inputs(const DynamicPluginTensorDesc* inputs) noexcept {
        for (int32_t i = 0; i < kInputs; ++i) {
            shapes[i] = inputs[i].desc.dims, types[i] = inputs[i].desc.type;
        }
    }
    Dims shapes[kInputs];
    DataType types[kInputs];
};

// Checks shapes and types, which must all be known, and fills `scan` except for its pointers.
bool describe(const Attributes& attributes, const Inputs& inputs, BsmScan* scan) noexcept {
    Sizes sizes{};
    if (!check_types(inputs.types) || !check_shapes(attributes, inputs.shapes, &sizes)) {
        return false;
    }
    if (sizes.n_sequences < 0 || sizes.length < 0 || sizes.headdim < 0) {
        log_error("zxbcdt %s has a size that is not known", ShapeText(inputs.shapes[kZxbcdt]).text);
        return false;
    }
    *scan = BsmScan{};
    scan->size = sizeof(BsmScan);
    scan->n_sequences = sizes.n_sequences;
    scan->length = sizes.length;
    scan->n_heads = attributes.n_heads;
    scan->headdim = sizes.headdim;
    scan->d_state = attributes.d_state;
    scan->d_conv = kTaps;
    scan->eps = attributes.eps;
    scan->dtype = dtype_of(inputs.types[kZxbcdt]);
    return true;
}

// Bytes of workspace for the largest shapes that the engine is built for; 0 if they are empty.
bool find_workspace(const Attributes& attributes, const DynamicPluginTensorDesc* inputs,
                    size_t* bytes) noexcept {
    Inputs largest(inputs);
    for (int32_t i = 0; i < kInputs; ++i) largest.shapes[i] = inputs[i].max;
    BsmScan scan;
    if (!describe(attributes, largest, &scan)) return false;
    if (scan.n_sequences == 0 || scan.length == 0) return true;
    return succeeded(bsm_scan_workspace(&scan, bytes), "no workspace size");
}

}  // namespace

ScanPlugin::ScanPlugin(const Attributes& attributes) noexcept
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

const nvinfer1::PluginFieldCollection* ScanPlugin::getFieldsToSerialize() noexcept {
    return &collection_;
}

int32_t ScanPlugin::getOutputDataTypes(DataType* outputs, int32_t n_outputs, const DataType* inputs,
                                       int32_t n_inputs) const noexcept {
    if (!check_count(n_inputs, n_outputs) || !check_types(inputs)) return 1;
    outputs[0] = inputs[kZxbcdt];
    return 0;
}

int32_t ScanPlugin::getOutputShapes(const DimsExprs* inputs, int32_t n_inputs, const DimsExprs*,
                                    int32_t, DimsExprs* outputs, int32_t n_outputs,
                                    nvinfer1::IExprBuilder& builder) noexcept {
    if (!check_count(n_inputs, n_outputs)) return 1;
    Dims shapes[kInputs];
    std::transform(inputs, inputs + kInputs, shapes, constant_sizes);
    Sizes sizes{};
    if (!check_shapes(attributes_, shapes, &sizes)) return 1;
    // 2 I = (2 W - 4 S - 2 H) / 2
    const DimsExprs& zxbcdt = inputs[kZxbcdt];
    const IDimensionExpr* const rest =
        builder.constant(4 * int64_t{attributes_.d_state} + 2 * int64_t{attributes_.n_heads});
    const IDimensionExpr* const inner =
        rest ? builder.operation(DimensionOperation::kSUB, *zxbcdt.d[2], *rest) : nullptr;
    const IDimensionExpr* const two = builder.constant(2);
    const IDimensionExpr* const features =
        inner && two ? builder.operation(DimensionOperation::kFLOOR_DIV, *inner, *two) : nullptr;
    if (features == nullptr) {
        log_error("TensorRT cannot express the shape of y for zxbcdt %s",
                  ShapeText(shapes[kZxbcdt]).text);
        return 1;
    }
    outputs[0].nbDims = 3;
    outputs[0].d[0] = zxbcdt.d[0];
    outputs[0].d[1] = zxbcdt.d[1];
    outputs[0].d[2] = features;
    return 0;
}

bool ScanPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors,
                                           int32_t n_inputs, int32_t n_outputs) noexcept {
    if (!check_count(n_inputs, n_outputs) || position < 0 || position > kY) return false;
    const PluginTensorDesc& tensor = tensors[position].desc;
    return tensor.format == nvinfer1::TensorFormat::kLINEAR &&
           type_fits(position, tensor.type, tensors[kZxbcdt].desc.type);
}

int32_t ScanPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t n_inputs,
                                    const DynamicPluginTensorDesc*, int32_t n_outputs) noexcept {
    if (!check_count(n_inputs, n_outputs)) return 1;
    const Inputs given(inputs);
    Sizes sizes{};
    size_t bytes = 0;  // checked here, because getWorkspaceSize cannot report a failure
    const bool accepted = check_types(given.types) &&
                          check_shapes(attributes_, given.shapes, &sizes) &&
                          find_workspace(attributes_, inputs, &bytes);
    return accepted ? 0 : 1;
}

size_t ScanPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t n_inputs,
                                    const DynamicPluginTensorDesc*,
                                    int32_t n_outputs) const noexcept {
    size_t bytes = 0;
    const bool known =
        check_count(n_inputs, n_outputs) && find_workspace(attributes_, inputs, &bytes);
    return known ? bytes : 0;
}

int32_t ScanPlugin::onShapeChange(const PluginTensorDesc* inputs, int32_t n_inputs,
                                  const PluginTensorDesc*, int32_t n_outputs) noexcept {
    BsmScan scan;
    return check_count(n_inputs, n_outputs) && describe(attributes_, Inputs(inputs), &scan) ? 0 : 1;
}

int32_t ScanPlugin::enqueue(const PluginTensorDesc* input_tensors, const PluginTensorDesc*,
                            const void* const* inputs, void* const* outputs, void* workspace,
                            cudaStream_t stream) noexcept {
    BsmScan scan;
    if (!describe(attributes_, Inputs(input_tensors), &scan)) return 1;
    if (scan.n_sequences == 0 || scan.length == 0) return 0;
    scan.zxbcdt = inputs[kZxbcdt];
    scan.conv_weight = inputs[kConvWeight];
    scan.conv_bias = inputs[kConvBias];
    scan.dt_bias = static_cast<const float*>(inputs[kDtBias]);
    scan.A = static_cast<const float*>(inputs[kA]);
    scan.D = static_cast<const float*>(inputs[kD]);
    scan.y = outputs[0];
    size_t bytes = 0;
    if (!succeeded(bsm_scan_workspace(&scan, &bytes), "no workspace size")) return 1;
    scan.workspace = workspace;
    scan.workspace_bytes = bytes;  // TensorRT has allocated enough for the largest shapes
    return succeeded(bsm_scan_enqueue(&scan, stream), "not run") ? 0 : 1;
}

}  // namespace bsm
