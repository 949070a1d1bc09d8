// The parts of TensorRT that drive one plugin library through its IPluginV3 interface: a registry
// for one creator, a logger, an expression builder. Called from Python by ctypes; needs only
// TensorRT's headers.

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdint>
#include <deque>
#include <string>

using namespace nvinfer1;

#ifndef HOST_MAJOR
#define HOST_MAJOR NV_TENSORRT_MAJOR
#endif

// The plugin library calls this to find out which TensorRT it is in.
extern "C" int32_t getInferLibMajorVersion() noexcept { return HOST_MAJOR; }

namespace {

class Logger final : public ILogger {
public:
    void log(Severity severity, const AsciiChar* message) noexcept override {
        errors += severity == Severity::kERROR;
        text += message;
        text += '\n';
    }
    std::string text;
    int errors = 0;
};

class LoggerFinder final : public ILoggerFinder {
public:
    ILogger* findLogger() override { return &logger; }
    Logger logger;
};

LoggerFinder g_finder;

// A size. If it is not a constant, `value` is its value in one run.
class Size final : public IDimensionExpr, private apiv::VDimensionExpr {
public:
    Size(int64_t value, bool constant) : value(value), constant(constant) { mImpl = this; }
    bool isConstant() const override { return constant; }
    int64_t getConstantValue() const override { return constant ? value : INT64_MIN; }
    bool isSizeTensor() const override { return false; }
    const int64_t value;
    const bool constant;
};

class Builder final : public IExprBuilder, private apiv::VExprBuilder {
public:
    Builder() { mImpl = this; }
    const Size* make(int64_t value, bool constant) { return &sizes.emplace_back(value, constant); }
    const IDimensionExpr* constant(int64_t value) override { return make(value, true); }
    const IDimensionExpr* operation(DimensionOperation operation, const IDimensionExpr& first,
                                    const IDimensionExpr& second) override {
        const auto& a = static_cast<const Size&>(first);
        const auto& b = static_cast<const Size&>(second);
        const bool constant = a.constant && b.constant;
        switch (operation) {
            case DimensionOperation::kSUB: return make(a.value - b.value, constant);
            case DimensionOperation::kFLOOR_DIV: return make(a.value / b.value, constant);
            default: return nullptr;  // no other is needed so far
        }
    }
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                            const IDimensionExpr&) override {
        return nullptr;
    }
    std::deque<Size> sizes;
};

template <class Capability>
Capability* capability(IPluginV3* plugin, PluginCapabilityType type) {
    return static_cast<Capability*>(plugin->getCapabilityInterface(type));
}
IPluginV3OneBuild* build(IPluginV3* plugin) {
    return capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}
IPluginV3OneRuntime* runtime(IPluginV3* plugin) {
    return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}

}  // namespace

extern "C" {

// A tensor as Python describes it. Bit i of `free` means that size i is not a constant of the
// network; dims.d then has its value in this run.
struct Tensor {
    PluginTensorDesc desc;
    uint32_t free;
};

void* host_load(const char* path) {
    void* const library = dlopen(path, RTLD_NOW);
    if (library == nullptr) return nullptr;
    const auto set_finder =
        reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"));
    const auto creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(
        dlsym(library, "getCreators"));
    if (set_finder == nullptr || creators == nullptr) return nullptr;
    set_finder(&g_finder);
    int32_t count = 0;
    IPluginCreatorInterface* const* const list = creators(count);
    return count == 1 ? static_cast<IPluginCreatorV3One*>(list[0]) : nullptr;
}

// Returns what was logged since the last call.
const char* host_messages() {
    static std::string text;
    text.swap(g_finder.logger.text);
    g_finder.logger.text.clear();
    return text.c_str();
}

const char* host_creator_text(IPluginCreatorV3One* creator, int what) {
    if (what == 0) return creator->getPluginName();
    return what == 1 ? creator->getPluginVersion() : creator->getPluginNamespace();
}

const PluginFieldCollection* host_field_names(IPluginCreatorV3One* creator) {
    return creator->getFieldNames();
}

IPluginV3* host_create(IPluginCreatorV3One* creator, const PluginFieldCollection* fields) {
    return creator->createPlugin("layer", fields, TensorRTPhase::kBUILD);
}

void host_delete(IPluginV3* plugin) { delete plugin; }

IPluginV3* host_clone(IPluginV3* plugin) { return plugin->clone(); }

IPluginV3* host_attach(IPluginV3* plugin) { return runtime(plugin)->attachToContext(nullptr); }

// Saves the plugin to a plan and loads it again: only the bytes of its fields survive.
IPluginV3* host_reload(IPluginCreatorV3One* creator, IPluginV3* plugin) {
    const PluginFieldCollection* const kept = runtime(plugin)->getFieldsToSerialize();
    std::deque<std::string> bytes;
    std::deque<PluginField> copies;
    for (int32_t i = 0; i < kept->nbFields; ++i) {
        PluginField field = kept->fields[i];
        field.name = bytes.emplace_back(field.name).c_str();
        const auto* const data = static_cast<const char*>(field.data);
        field.data = bytes.emplace_back(data, 4 * static_cast<size_t>(field.length)).data();
        copies.push_back(field);
    }
    PluginField fields[8];
    for (size_t i = 0; i < copies.size(); ++i) fields[i] = copies[i];
    const PluginFieldCollection collection{kept->nbFields, fields};
    return creator->createPlugin("layer", &collection, TensorRTPhase::kRUNTIME);
}

const char* host_metadata(IPluginV3* plugin) { return build(plugin)->getMetadataString(); }

int32_t host_output_type(IPluginV3* plugin, const DataType* types, int32_t count, DataType* type) {
    return build(plugin)->getOutputDataTypes(type, 1, types, count);
}

int32_t host_output_shape(IPluginV3* plugin, const Tensor* inputs, int32_t count, int64_t* dims,
                          bool* constant) {
    Builder builder;
    DimsExprs shapes[8]{}, output{};
    for (int32_t i = 0; i < count; ++i) {
        const Dims& from = inputs[i].desc.dims;
        shapes[i].nbDims = from.nbDims;
        for (int32_t axis = 0; axis < from.nbDims; ++axis) {
            shapes[i].d[axis] = builder.make(from.d[axis], !(inputs[i].free >> axis & 1));
        }
    }
    const int32_t status =
        build(plugin)->getOutputShapes(shapes, count, nullptr, 0, &output, 1, builder);
    for (int32_t axis = 0; status == 0 && axis < output.nbDims; ++axis) {
        const auto* const size = static_cast<const Size*>(output.d[axis]);
        dims[axis] = size->value;
        constant[axis] = size->constant;
    }
    return status == 0 ? output.nbDims : -1;
}

bool host_supports(IPluginV3* plugin, int32_t position, const PluginTensorDesc* tensors,
                   int32_t count) {
    DynamicPluginTensorDesc dynamic[8]{};
    for (int32_t i = 0; i < count; ++i) dynamic[i].desc = tensors[i];
    return build(plugin)->supportsFormatCombination(position, dynamic, count - 1, 1);
}

// Configures for sizes up to those of the inputs; the free ones may go down to 0.
int32_t host_configure(IPluginV3* plugin, const Tensor* inputs, int32_t count, size_t* workspace) {
    DynamicPluginTensorDesc dynamic[8]{}, output{};
    for (int32_t i = 0; i < count; ++i) {
        dynamic[i] = {inputs[i].desc, inputs[i].desc.dims, inputs[i].desc.dims,
                      inputs[i].desc.dims};
        for (int32_t axis = 0; axis < inputs[i].desc.dims.nbDims; ++axis) {
            if (!(inputs[i].free >> axis & 1)) continue;
            dynamic[i].desc.dims.d[axis] = -1;
            dynamic[i].min.d[axis] = 0;
        }
    }
    const int32_t status = build(plugin)->configurePlugin(dynamic, count, &output, 1);
    *workspace = build(plugin)->getWorkspaceSize(dynamic, count, &output, 1);
    return status;
}

int32_t host_shape_change(IPluginV3* plugin, const PluginTensorDesc* inputs, int32_t count) {
    const PluginTensorDesc output{};
    return runtime(plugin)->onShapeChange(inputs, count, &output, 1);
}

int32_t host_enqueue(IPluginV3* plugin, const PluginTensorDesc* inputs, const void* const* data,
                     void* output, void* workspace) {
    const PluginTensorDesc desc{};
    return runtime(plugin)->enqueue(inputs, &desc, data, &output, workspace, nullptr);
}
}
