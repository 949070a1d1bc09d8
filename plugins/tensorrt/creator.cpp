#include "creator.h"

#include <new>

#include "log.h"
#include "plugin.h"

namespace bsm {

using nvinfer1::PluginFieldType;

ScanCreator::ScanCreator() noexcept
    : fields_{{"n_heads", nullptr, PluginFieldType::kINT32, 1},
          {"d_state", nullptr, PluginFieldType::kINT32, 1},
          {"eps", nullptr, PluginFieldType::kFLOAT32, 1}},
      collection_{3, fields_} {}

nvinfer1::PluginFieldCollection const* ScanCreator::getFieldNames() noexcept {
    return &collection_;
}

nvinfer1::IPluginV3* ScanCreator::createPlugin(char const*,
    nvinfer1::PluginFieldCollection const* fields, nvinfer1::TensorRTPhase) noexcept {
    Attributes attributes{};
    if (!check_attributes(fields, &attributes)) return nullptr;
    auto* const plugin = new (std::nothrow) ScanPlugin(attributes);
    if (plugin == nullptr) log_error("out of memory");
    return plugin;
}

}  // namespace bsm
