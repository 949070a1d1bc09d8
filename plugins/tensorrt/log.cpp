#include "log.h"

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "host.h"

namespace bsm {
namespace {

using FindLogger = void* (*)(void* finder);
using Log = void (*)(void* logger, int32_t severity, char const* message);

constexpr int32_t kERROR = 1;  // ILogger::Severity

std::atomic<void*> g_finder{nullptr};
std::atomic<int> g_slot{-1};

// An entry of the table of virtual functions that an object starts with.
template <typename Function>
Function virtual_function(void* object, int slot) noexcept {
    return reinterpret_cast<Function>((*static_cast<void***>(object))[slot]);
}

bool log_to_host(char const* message) noexcept {
    void* const finder = g_finder.load();
    int const slot = g_slot.load();
    if (finder == nullptr || slot < 0) return false;
    try {
        void* const logger = virtual_function<FindLogger>(finder, slot)(finder);
        if (logger == nullptr) return false;
        virtual_function<Log>(logger, slot)(logger, kERROR, message);
        return true;
    } catch (...) {  // findLogger is not noexcept
        return false;
    }
}

}  // namespace

void set_logger_finder(void* finder) noexcept {
    g_slot.store(finder != nullptr ? logger_slot(finder) : -1);
    g_finder.store(finder);
}

void log_error(char const* format, ...) noexcept {
    char message[768];
    int const prefix = std::snprintf(message, sizeof message, "bsm::BiMamba2Scan: ");
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message + prefix, sizeof message - prefix, format, arguments);
    va_end(arguments);
    if (!log_to_host(message)) std::fprintf(stderr, "%s\n", message);
}

ShapeText::ShapeText(nvinfer1::Dims const& dims) noexcept {
    if (dims.nbDims < 0 || dims.nbDims > nvinfer1::Dims::MAX_DIMS) {
        std::snprintf(text, sizeof text, "(of unknown rank)");
        return;
    }
    size_t used = static_cast<size_t>(std::snprintf(text, sizeof text, "("));
    for (int32_t axis = 0; axis < dims.nbDims; ++axis) {  // 8 sizes of 20 digits: always fits
        char const* const comma = axis ? ", " : "";
        long long const size = dims.d[axis];
        used += static_cast<size_t>(
            size < 0 ? std::snprintf(text + used, sizeof text - used, "%s?", comma)
                     : std::snprintf(text + used, sizeof text - used, "%s%lld", comma, size));
    }
    std::snprintf(text + used, sizeof text - used, dims.nbDims == 1 ? ",)" : ")");
}

char const* type_name(nvinfer1::DataType type) noexcept {
    switch (type) {
        case nvinfer1::DataType::kFLOAT: return "float32";
        case nvinfer1::DataType::kHALF: return "float16";
        case nvinfer1::DataType::kBF16: return "bfloat16";
        case nvinfer1::DataType::kINT8: return "int8";
        case nvinfer1::DataType::kINT32: return "int32";
        case nvinfer1::DataType::kINT64: return "int64";
        case nvinfer1::DataType::kBOOL: return "bool";
        case nvinfer1::DataType::kUINT8: return "uint8";
        default: return "a type of another kind";
    }
}

}  // namespace bsm
