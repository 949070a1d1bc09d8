// What TensorRT looks for in a plugin library (IPluginRegistry::loadLibrary, trtexec
// --dynamicPlugins). Nothing registers itself when the library is merely opened: the interface of
// TensorRT's registry differs between versions 10 and 11, where those of plugins do not.

#include <NvInferRuntime.h>

#include "creator.h"
#include "log.h"

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
