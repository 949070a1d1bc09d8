// The layer: one bsm::BiMamba2Scan in a TensorRT network.
#pragma once

#include <NvInferRuntime.h>

#include "operands.h"

namespace bsm {

// TensorRT owns the objects: it clones them for each engine and context, and deletes them.
// Methods return 0 on success; on failure they log a sentence and return 1. None throws.
class ScanPlugin final : public nvinfer1::IPluginV3,
                         public nvinfer1::IPluginV3OneCore,
                         public nvinfer1::IPluginV3OneBuild,
                         public nvinfer1::IPluginV3OneRuntime {
public:
    explicit ScanPlugin(const Attributes& attributes) noexcept;
    // Not copyable: fields_ points into the object itself.
    ScanPlugin(const ScanPlugin&) = delete;
    ScanPlugin& operator=(const ScanPlugin&) = delete;

    // IPluginV3
    nvinfer1::IPluginCapability* getCapabilityInterface(
        nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    // IPluginV3OneCore
    const char* getPluginName() const noexcept override { return kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

    // IPluginV3OneBuild
    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t n_outputs,
                               const nvinfer1::DataType* inputs,
                               int32_t n_inputs) const noexcept override;
    int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t n_inputs,
                            const nvinfer1::DimsExprs* shape_inputs, int32_t n_shape_inputs,
                            nvinfer1::DimsExprs* outputs, int32_t n_outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position,
                                   const nvinfer1::DynamicPluginTensorDesc* tensors,
                                   int32_t n_inputs, int32_t n_outputs) noexcept override;
    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t n_inputs,
                            const nvinfer1::DynamicPluginTensorDesc* outputs,
                            int32_t n_outputs) noexcept override;
    size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t n_inputs,
                            const nvinfer1::DynamicPluginTensorDesc* outputs,
                            int32_t n_outputs) const noexcept override;
    const char* getTimingCacheID() noexcept override { return summary_; }
    const char* getMetadataString() noexcept override { return summary_; }

    // IPluginV3OneRuntime
    int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t n_inputs,
                          const nvinfer1::PluginTensorDesc* outputs,
                          int32_t n_outputs) noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc* input_tensors,
                    const nvinfer1::PluginTensorDesc* output_tensors, const void* const* inputs,
                    void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(
        nvinfer1::IPluginResourceContext* context) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

private:
    Attributes attributes_;
    nvinfer1::PluginField fields_[3];
    nvinfer1::PluginFieldCollection collection_;
    char summary_[64];
};

}  // namespace bsm
