// The layer: one call of bsm::BiMamba2Scan in a TensorRT network.
#pragma once

#include <NvInferRuntime.h>

#include "operands.h"

namespace bsm {

// TensorRT owns the objects: it clones them for each engine and context and deletes them.
// Methods return 0 or, after logging a sentence, 1; none throws.
class ScanPlugin final : public nvinfer1::IPluginV3,
                         public nvinfer1::IPluginV3OneCore,
                         public nvinfer1::IPluginV3OneBuild,
                         public nvinfer1::IPluginV3OneRuntime {
public:
    explicit ScanPlugin(Attributes const& attributes) noexcept;
    // The fields to serialise point into the object itself.
    ScanPlugin(ScanPlugin const&) = delete;
    ScanPlugin& operator=(ScanPlugin const&) = delete;

    // IPluginV3
    nvinfer1::IPluginCapability* getCapabilityInterface(
        nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    // IPluginV3OneCore
    char const* getPluginName() const noexcept override { return kNAME; }
    char const* getPluginVersion() const noexcept override { return kVERSION; }
    char const* getPluginNamespace() const noexcept override { return kNAMESPACE; }

    // IPluginV3OneBuild
    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t n_outputs,
        nvinfer1::DataType const* inputs, int32_t n_inputs) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t n_inputs,
        nvinfer1::DimsExprs const* shape_inputs, int32_t n_shape_inputs,
        nvinfer1::DimsExprs* outputs, int32_t n_outputs,
        nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position,
        nvinfer1::DynamicPluginTensorDesc const* tensors, int32_t n_inputs,
        int32_t n_outputs) noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t n_inputs,
        nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t n_outputs) noexcept override;
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t n_inputs,
        nvinfer1::DynamicPluginTensorDesc const* outputs,
        int32_t n_outputs) const noexcept override;
    char const* getTimingCacheID() noexcept override { return summary_; }
    char const* getMetadataString() noexcept override { return summary_; }

    // IPluginV3OneRuntime
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t n_inputs,
        nvinfer1::PluginTensorDesc const* outputs, int32_t n_outputs) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* input_tensors,
        nvinfer1::PluginTensorDesc const* output_tensors, void const* const* inputs,
        void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(
        nvinfer1::IPluginResourceContext* context) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    Attributes attributes_;
    nvinfer1::PluginField fields_[3];
    nvinfer1::PluginFieldCollection collection_;
    char summary_[64];
};

}  // namespace bsm
