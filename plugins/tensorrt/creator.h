// Makes layers from the attributes of an ONNX node, or from those that an engine kept.
#pragma once

#include <NvInferRuntime.h>

#include "operands.h"

namespace bsm {

class ScanCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    ScanCreator() noexcept;

    // Null after logging a sentence when an attribute is missing or out of range. Others than
    // those of getFieldNames are ignored.
    nvinfer1::IPluginV3* createPlugin(char const* name,
        nvinfer1::PluginFieldCollection const* fields,
        nvinfer1::TensorRTPhase phase) noexcept override;
    // What the ONNX parser passes on: it drops all other attributes.
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override;
    char const* getPluginName() const noexcept override { return kNAME; }
    char const* getPluginVersion() const noexcept override { return kVERSION; }
    char const* getPluginNamespace() const noexcept override { return kNAMESPACE; }

private:
    nvinfer1::PluginField fields_[3];
    nvinfer1::PluginFieldCollection collection_;
};

}  // namespace bsm
