// The functions that TensorRT calls in a plugin library (IPluginRegistry::loadLibrary, trtexec
// --dynamicPlugins). Merely opening the library registers nothing: that would need the interface of
// TensorRT's registry, which, unlike those of plugins, differs between versions 10 and 11.

#include <NvInferRuntime.h>

#include <new>

#include "log.h"
#include "plugin.h"

namespace bsm {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

// Makes layers from the attributes of an ONNX node, or from those stored in an engine.
class ScanCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    // Logs a sentence and returns null if an attribute is missing or out of range. Attributes that
    // getFieldNames does not list are ignored.
    nvinfer1::IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase) noexcept override {
        Attributes attributes{};
        if (!check_attributes(fields, &attributes)) return nullptr;
        auto* const plugin = new (std::nothrow) ScanPlugin(attributes);
        if (plugin == nullptr) log_error("out of memory");
        return plugin;
    }
    // The attributes that the ONNX parser passes on; it drops all others.
    const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
    const char* getPluginName() const noexcept override { return kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

private:
    PluginField fields_[3] = {{"n_heads", nullptr, PluginFieldType::kINT32, 1},
                              {"d_state", nullptr, PluginFieldType::kINT32, 1},
                              {"eps", nullptr, PluginFieldType::kFLOAT32, 1}};
    PluginFieldCollection collection_{3, fields_};
};

}  // namespace
}  // namespace bsm

#define BSM_EXPORT extern "C" __attribute__((visibility("default")))

BSM_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
BSM_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { bsm::set_logger_finder(finder); }

nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static bsm::ScanCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    count = 1;
    return creators;
}
