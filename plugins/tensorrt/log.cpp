#include "log.h"

#include <dlfcn.h>

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>

namespace bsm {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> g_finder{nullptr};

// Whether `finder` comes from a TensorRT of the headers' major version. None of its own functions
// may be called to find that out, so this asks the library that the functions belong to.
bool is_of_these_headers(const nvinfer1::ILoggerFinder* finder) noexcept {
    const void* const functions = *reinterpret_cast<const void* const*>(finder);
    Dl_info image{};
    if (dladdr(functions, &image) == 0 || image.dli_fname == nullptr) return false;
    void* const library = dlopen(image.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) return false;  // TensorRT linked into a program
    const auto major = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibMajorVersion"));
    const bool same = major != nullptr && major() == NV_TENSORRT_MAJOR;
    dlclose(library);  // undoes this dlopen only; the library stays loaded
    return same;
}

bool log_to_host(const char* message) noexcept {
    nvinfer1::ILoggerFinder* const finder = g_finder.load();
    if (finder == nullptr) return false;
    try {
        nvinfer1::ILogger* const logger = finder->findLogger();
        if (logger == nullptr) return false;
        logger->log(nvinfer1::ILogger::Severity::kERROR, message);
        return true;
    } catch (...) {  // findLogger is not noexcept
        return false;
    }
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept {
    g_finder.store(finder != nullptr && is_of_these_headers(finder) ? finder : nullptr);
}

void log_error(const char* format, ...) noexcept {
    char message[768];
    const int prefix = std::snprintf(message, sizeof message, "bsm::BiMamba2Scan: ");
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message + prefix, sizeof message - prefix, format, arguments);
    va_end(arguments);
    if (!log_to_host(message)) std::fprintf(stderr, "%s\n", message);
}

ShapeText::ShapeText(const nvinfer1::Dims& dims) noexcept {
    if (dims.nbDims < 0 || dims.nbDims > nvinfer1::Dims::MAX_DIMS) {
        std::snprintf(text, sizeof text, "(of unknown rank)");
        return;
    }
    size_t used = static_cast<size_t>(std::snprintf(text, sizeof text, "("));
    for (int32_t axis = 0; axis < dims.nbDims; ++axis) {  // 8 sizes of 20 digits: always fits
        const char* const comma = axis ? ", " : "";
        const long long size = dims.d[axis];
        used += static_cast<size_t>(
            size < 0 ? std::snprintf(text + used, sizeof text - used, "%s?", comma)
                     : std::snprintf(text + used, sizeof text - used, "%s%lld", comma, size));
    }
    std::snprintf(text + used, sizeof text - used, dims.nbDims == 1 ? ",)" : ")");
}

const char* type_name(nvinfer1::DataType type) noexcept {
    switch (type) {
        case nvinfer1::DataType::kFLOAT: return "float32";
        case nvinfer1::DataType::kHALF: return "float16";
        case nvinfer1::DataType::kBF16: return "bfloat16";
        case nvinfer1::DataType::kINT8: return "int8";
        case nvinfer1::DataType::kINT32: return "int32";
        case nvinfer1::DataType::kINT64: return "int64";
        case nvinfer1::DataType::kBOOL: return "bool";
        case nvinfer1::DataType::kUINT8: return "uint8";
        default: return "another type";
    }
}

}  // namespace bsm
