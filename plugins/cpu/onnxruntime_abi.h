// The part of ONNX Runtime's C interface that a custom operator needs, declared from its published
// ABI: `OrtApi` is a table of function pointers that only ever grows at its end; the first field of
// the struct `OrtCustomOp` tells ONNX Runtime how much of it to read. No Python package has ONNX
// Runtime's own headers, and an installation must not depend on finding them.
//
// Names and meanings: onnxruntime_c_api.h, version 17 (ONNX Runtime 1.17) and newer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bsm_cpu::ort {

constexpr uint32_t kApiVersion = 17;  // the oldest with KernelContext_ParallelFor

// Opaque types.
struct Status;
struct Value;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Shape;

constexpr int kInvalidArgument = 2;  // OrtErrorCode
constexpr int kFail = 1;
constexpr int kFloat = 1;     // ONNXTensorElementDataType
constexpr int kRequired = 0;  // OrtCustomOpInputOutputCharacteristic
constexpr int kMemDefault = 0;

// OrtApi: the functions used here, by their place in the table.
struct Api {
    const void* const* table;

    template <size_t kPlace, typename Function>
    Function* at() const {
        return reinterpret_cast<Function*>(const_cast<void*>(table[kPlace]));
    }

    Status* create_status(int code, const char* text) const {
        return at<0, Status*(int, const char*)>()(code, text);
    }
    Status* create_domain(const char* name, Domain** out) const {
        return at<26, Status*(const char*, Domain**)>()(name, out);
    }
    Status* add_to_domain(Domain* domain, const struct CustomOp* op) const {
        return at<27, Status*(Domain*, const struct CustomOp*)>()(domain, op);
    }
    Status* add_domain(SessionOptions* options, Domain* domain) const {
        return at<28, Status*(SessionOptions*, Domain*)>()(options, domain);
    }
    Status* data(Value* value, void** out) const {
        return at<51, Status*(Value*, void**)>()(value, out);
    }
    Status* rank(const Shape* shape, size_t* out) const {
        return at<61, Status*(const Shape*, size_t*)>()(shape, out);
    }
    Status* dimensions(const Shape* shape, int64_t* values, size_t count) const {
        return at<62, Status*(const Shape*, int64_t*, size_t)>()(shape, values, count);
    }
    Status* shape(const Value* value, Shape** out) const {
        return at<65, Status*(const Value*, Shape**)>()(value, out);
    }
    Status* attribute(const KernelInfo* info, const char* name, float* out) const {
        return at<85, Status*(const KernelInfo*, const char*, float*)>()(info, name, out);
    }
    Status* attribute(const KernelInfo* info, const char* name, int64_t* out) const {
        return at<86, Status*(const KernelInfo*, const char*, int64_t*)>()(info, name, out);
    }
    Status* input(const KernelContext* context, size_t index, const Value** out) const {
        return at<90, Status*(const KernelContext*, size_t, const Value**)>()(context, index, out);
    }
    Status* output(KernelContext* context, size_t index, const int64_t* dims, size_t rank,
                   Value** out) const {
        return at<91, Status*(KernelContext*, size_t, const int64_t*, size_t, Value**)>()(
            context, index, dims, rank, out);
    }
    void release(Status* status) const { at<93, void(Status*)>()(status); }
    void release(Shape* shape) const { at<99, void(Shape*)>()(shape); }
    // Calls `work` with 0 .. total - 1 on threads of the session, in at most `batches` parts.
    Status* parallel_for(const KernelContext* context, void (*work)(void*, size_t), size_t total,
                         size_t batches, void* data) const {
        return at<274, Status*(const KernelContext*, void (*)(void*, size_t), size_t, size_t,
                               void*)>()(context, work, total, batches, data);
    }
};

// OrtApiBase.
struct ApiBase {
    const void* const* (*get_api)(uint32_t version);
    const char* (*version)();
};

// OrtCustomOp.
struct CustomOp {
    uint32_t api_version;
    void* (*create_kernel)(const CustomOp*, const void* const* api, const KernelInfo*);
    const char* (*name)(const CustomOp*);
    const char* (*provider)(const CustomOp*);
    int (*input_type)(const CustomOp*, size_t);
    size_t (*input_count)(const CustomOp*);
    int (*output_type)(const CustomOp*, size_t);
    size_t (*output_count)(const CustomOp*);
    void (*compute)(void* kernel, KernelContext*);
    void (*destroy)(void* kernel);
    int (*input_characteristic)(const CustomOp*, size_t);
    int (*output_characteristic)(const CustomOp*, size_t);
    int (*input_memory)(const CustomOp*, size_t);
    int (*variadic_input_min)(const CustomOp*);
    int (*variadic_input_same)(const CustomOp*);
    int (*variadic_output_min)(const CustomOp*);
    int (*variadic_output_same)(const CustomOp*);
    Status* (*create_kernel_v2)(const CustomOp*, const void* const* api, const KernelInfo*,
                                void** kernel);
    Status* (*compute_v2)(void* kernel, KernelContext*);
    Status* (*infer_shape)(const CustomOp*, void* context);
    int (*first_version)(const CustomOp*);
    int (*last_version)(const CustomOp*);
    void* later[4];  // in-place and alias maps
};

}  // namespace bsm_cpu::ort
