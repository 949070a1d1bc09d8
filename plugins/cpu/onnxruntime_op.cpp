// bsm::BiMamba2Scan as a custom operator of ONNX Runtime, on the session's own threads.
//
// `SessionOptions.register_custom_ops_library` opens this library and calls RegisterCustomOps.
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <string>

#include "onnxruntime_abi.h"
#include "scan.h"

namespace bsm_cpu::ort {
namespace {

constexpr int kInputs = 6;
constexpr const char* kNames[kInputs] = {"zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A", "D"};
constexpr size_t kRanks[kInputs] = {3, 3, 2, 2, 2, 2};
constexpr int64_t kMostWorkers = 256;  // a session with more threads leaves the rest idle

// An error with one sentence, which becomes the status that a node returns.
struct Failure {
    int code;
    std::string text;
};

__attribute__((format(printf, 1, 2))) Failure refuse(const char* format, ...) {
    char text[256];
    va_list values;
    va_start(values, format);
    std::vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    return {kInvalidArgument, text};
}

// A node of the graph.
struct Node {
    Api api;
    int64_t n_heads, d_state;
    float eps;
};

struct Tensor {
    float* data;
    int64_t size[3];
};

// A status of ONNX Runtime, thrown to pass it on to the caller.
struct Passed {
    Status* status;
};

void check(Status* status) {
    if (status) throw Passed{status};
}

Tensor input(const Api& api, const KernelContext* context, int index) {
    const Value* value = nullptr;
    check(api.input(context, index, &value));
    Shape* raw = nullptr;
    check(api.shape(value, &raw));
    const auto release = [&api](Shape* shape) { api.release(shape); };
    const std::unique_ptr<Shape, decltype(release)> shape(raw, release);
    size_t rank = 0;
    check(api.rank(shape.get(), &rank));
    if (rank != kRanks[index]) {
        throw refuse("%s must have %zu dimensions, not %zu", kNames[index], kRanks[index], rank);
    }
    Tensor tensor{nullptr, {1, 1, 1}};
    check(api.dimensions(shape.get(), tensor.size, rank));
    void* data = nullptr;
    check(api.data(const_cast<Value*>(value), &data));
    tensor.data = static_cast<float*>(data);
    return tensor;
}

void must_be(int index, const Tensor& tensor, int64_t columns, int64_t taps = 1) {
    const int64_t* size = tensor.size;
    if (size[0] == 2 && size[1] == columns && size[2] == taps) return;
    const char* name = kNames[index];
    if (kRanks[index] == 3) {
        throw refuse("%s must be (2, %lld, %lld), not (%lld, %lld, %lld)", name, (long long)columns,
                     (long long)taps, (long long)size[0], (long long)size[1], (long long)size[2]);
    }
    throw refuse("%s must be (2, %lld), not (%lld, %lld)", name, (long long)columns,
                 (long long)size[0], (long long)size[1]);
}

// Checks the inputs against each other and describes the call, except for y.
BsmCpuScan described(const Node& node, const KernelContext* context) {
    Tensor in[kInputs];
    for (int i = 0; i < kInputs; ++i) in[i] = input(node.api, context, i);
    const int64_t H = node.n_heads, S = node.d_state, features = in[0].size[2];
    const int64_t four_inner = features - 4 * S - 2 * H, inner = four_inner / 4;
    if (H < 1 || S < 1 || H > INT32_MAX || S > INT32_MAX || four_inner % 4 || inner < H ||
        inner % H || inner > INT32_MAX) {
        throw refuse(
            "zxbcdt has %lld features, which is not 2 * (2 d_inner + 2 * %lld + %lld) for a "
            "d_inner that %lld heads divide",
            (long long)features, (long long)S, (long long)H, (long long)H);
    }
    if (in[0].size[1] < 1) throw refuse("zxbcdt must be (N, L >= 1, 2 W), not of length 0");
    const int64_t taps = in[1].size[2];
    if (taps < 1 || taps > INT32_MAX) throw refuse("conv_weight has no taps");
    must_be(1, in[1], inner + 2 * S, taps);
    must_be(2, in[2], inner + 2 * S);
    for (int i = 3; i < kInputs; ++i) must_be(i, in[i], H);
    BsmCpuScan scan{};
    scan.size = sizeof(scan);
    scan.zxbcdt = in[0].data;
    scan.conv_weight = in[1].data;
    scan.conv_bias = in[2].data;
    scan.dt_bias = in[3].data;
    scan.A = in[4].data;
    scan.D = in[5].data;
    scan.n_sequences = in[0].size[0];
    scan.length = in[0].size[1];
    scan.n_heads = static_cast<int32_t>(H);
    scan.headdim = static_cast<int32_t>(inner / H);
    scan.d_state = static_cast<int32_t>(S);
    scan.d_conv = static_cast<int32_t>(taps);
    scan.eps = node.eps;
    return scan;
}

void compute(const Node& node, KernelContext* context) {
    BsmCpuScan scan = described(node, context);
    const int64_t shape[3] = {scan.n_sequences, scan.length,
                              2 * int64_t(scan.n_heads) * scan.headdim};
    Value* value = nullptr;
    check(node.api.output(context, 0, shape, 3, &value));
    void* data = nullptr;
    check(node.api.data(value, &data));
    scan.y = static_cast<float*>(data);
    if (!scan.n_sequences) return;
    const int status = run(scan, [&](int64_t most, const std::function<void()>& worker) {
        const int64_t count = most < kMostWorkers ? most : kMostWorkers;
        check(node.api.parallel_for(
            context,
            [](void* work, size_t) { (*static_cast<const std::function<void()>*>(work))(); },
            static_cast<size_t>(count), 0, const_cast<std::function<void()>*>(&worker)));
    });
    if (status) throw Failure{kFail, bsm_cpu_scan_status_text(status)};
}

// Runs `work` and turns an exception into a status.
template <typename Work>
Status* guarded(const Api& api, Work work) {
    try {
        work();
        return nullptr;
    } catch (const Passed& passed) {
        return passed.status;
    } catch (const Failure& failure) {
        return api.create_status(failure.code, ("BiMamba2Scan: " + failure.text).c_str());
    } catch (const std::exception& error) {
        return api.create_status(kFail, error.what());
    }
}

Status* create(const CustomOp*, const void* const* table, const KernelInfo* info, void** kernel) {
    const Api api{table};
    return guarded(api, [&] {
        auto node = std::make_unique<Node>(Node{api, 0, 0, 0});
        check(api.attribute(info, "n_heads", &node->n_heads));
        check(api.attribute(info, "d_state", &node->d_state));
        check(api.attribute(info, "eps", &node->eps));
        *kernel = node.release();
    });
}

Status* compute_node(void* kernel, KernelContext* context) {
    const Node& node = *static_cast<const Node*>(kernel);
    return guarded(node.api, [&] { compute(node, context); });
}

CustomOp make_operator() {
    CustomOp op{};
    op.api_version = kApiVersion;
    op.name = [](const CustomOp*) { return "BiMamba2Scan"; };
    op.provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
    op.input_type = op.output_type = [](const CustomOp*, size_t) { return kFloat; };
    op.input_count = [](const CustomOp*) { return size_t{kInputs}; };
    op.output_count = [](const CustomOp*) { return size_t{1}; };
    op.destroy = [](void* kernel) { delete static_cast<Node*>(kernel); };
    op.input_characteristic =
        op.output_characteristic = [](const CustomOp*, size_t) { return kRequired; };
    op.input_memory = [](const CustomOp*, size_t) { return kMemDefault; };
    op.variadic_input_min = op.variadic_input_same = [](const CustomOp*) { return 1; };
    op.variadic_output_min = op.variadic_output_same = [](const CustomOp*) { return 1; };
    op.create_kernel_v2 = create;
    op.compute_v2 = compute_node;
    op.first_version = [](const CustomOp*) { return 1; };
    op.last_version = [](const CustomOp*) { return 1; };
    return op;
}

const CustomOp kOperator = make_operator();

}  // namespace
}  // namespace bsm_cpu::ort

extern "C" __attribute__((visibility("default"))) bsm_cpu::ort::Status* RegisterCustomOps(
    bsm_cpu::ort::SessionOptions* options, const bsm_cpu::ort::ApiBase* base) {
    using namespace bsm_cpu::ort;
    const void* const* table = base->get_api(kApiVersion);
    if (!table) return nullptr;  // too old: ONNX Runtime then reports the operator as missing
    const Api api{table};
    Domain* domain = nullptr;  // lives as long as the library
    if (Status* status = api.create_domain("bsm", &domain)) return status;
    if (Status* status = api.add_to_domain(domain, &kOperator)) return status;
    return api.add_domain(options, domain);
}
