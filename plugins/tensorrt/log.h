// Messages to whoever uses TensorRT. Nothing here allocates or throws.
#pragma once

#include <NvInferRuntime.h>

namespace bsm {

// Takes the logger that TensorRT offers a plugin library. The interfaces of loggers, unlike those of
// plugins, differ between major versions, and the TensorRT that runs need not be that of the
// headers: the logger of another major version is left alone.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// One sentence as an error, prefixed with the operator's name: to TensorRT's logger, or to stderr
// where there is none to use.
void log_error(char const* format, ...) noexcept __attribute__((format(printf, 1, 2)));

// A shape as text: "(62, 801, 4640)"; "?" stands for sizes that are not known yet.
struct ShapeText {
    explicit ShapeText(nvinfer1::Dims const& dims) noexcept;
    char text[192];
};

char const* type_name(nvinfer1::DataType type) noexcept;

}  // namespace bsm
