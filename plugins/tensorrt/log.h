// Messages to whoever uses TensorRT. Nothing here allocates or throws.
#pragma once

#include <NvInferRuntime.h>

namespace bsm {

// The ILoggerFinder that TensorRT hands to a plugin library, of TensorRT's version and not
// necessarily that of the headers: see host.h.
void set_logger_finder(void* finder) noexcept;

// One sentence as an error, prefixed with the operator's name: to TensorRT's logger, or to stderr
// where there is none.
void log_error(char const* format, ...) noexcept __attribute__((format(printf, 1, 2)));

// A shape as text: "(62, 801, 4640)"; "?" stands for sizes that are not known yet.
struct ShapeText {
    explicit ShapeText(nvinfer1::Dims const& dims) noexcept;
    char text[192];
};

char const* type_name(nvinfer1::DataType type) noexcept;

}  // namespace bsm
