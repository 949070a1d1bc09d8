// Error messages through TensorRT's logger. Nothing here allocates or throws.
#pragma once

#include <NvInferRuntime.h>

namespace bsm {

// Keeps the logger that TensorRT offers a plugin library. Unlike plugins, loggers have a different
// interface in each major version, and the TensorRT at run time need not be that of the headers: a
// logger of another major version is not used.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// Logs one sentence as an error, prefixed with the operator's name: to TensorRT's logger, or to
// stderr if there is no logger to use.
void log_error(const char* format, ...) noexcept __attribute__((format(printf, 1, 2)));

// A shape as text, such as "(62, 801, 4640)"; "?" stands for a size that is not known yet.
struct ShapeText {
    explicit ShapeText(const nvinfer1::Dims& dims) noexcept;
    char text[192];
};

const char* type_name(nvinfer1::DataType type) noexcept;

}  // namespace bsm
