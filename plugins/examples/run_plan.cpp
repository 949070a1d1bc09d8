// One chunk through a plan, in C++: the mixture's spectrum in, the voice's mask out.
//
//     g++ -std=c++17 -O2 -I$TENSORRT/include -I$CUDA/include run_plan.cpp -o run_plan
//         -L$TENSORRT/lib -L$CUDA/lib64 -lnvinfer -lcudart
//     ./run_plan libbsm_trt_plugin.so model.plan spectrum.f32 mask.f32
//
// Both .f32 files are raw float32, (frames, 1025, 2) for each of two channels: what an engine of
// `bsm` gets and gives. The plan says how many frames there may be. STFT, the product of mask and
// spectrum, and the inverse STFT are yours.

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int64_t kFRAME = 2 * 1025 * 2;  // numbers of a frame: channels, bins, real and imaginary

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, char const* message) noexcept override {
        if (severity <= Severity::kWARNING) std::fprintf(stderr, "TensorRT: %s\n", message);
    }
};

void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

template <typename T>
T* need(T* pointer, std::string const& otherwise) {
    if (pointer == nullptr) throw std::runtime_error(otherwise);
    return pointer;
}

std::vector<char> read(std::string const& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    std::vector<char> bytes(file ? size_t(file.tellg()) : 0);
    if (!file.seekg(0).read(bytes.data(), std::streamsize(bytes.size())) || bytes.empty()) {
        throw std::runtime_error(path + " cannot be read, or is empty");
    }
    return bytes;
}

// Device memory for the life of the program.
void* allocate(size_t size) {
    void* address = nullptr;
    check(cudaMalloc(&address, size));
    return address;
}

// The mask of one chunk; both are host memory of the same size.
std::vector<char> infer(nvinfer1::ICudaEngine& engine, std::vector<char> const& spectrum) {
    int64_t const frames = int64_t(spectrum.size()) / (kFRAME * int64_t(sizeof(float)));
    nvinfer1::Dims const shape{5, {1, 2, frames, 1025, 2}};
    // One context a stream: it holds the activations, and is not for two threads at once.
    std::unique_ptr<nvinfer1::IExecutionContext> const context(
        need(engine.createExecutionContext(), "there is no memory for an execution context"));
    if (!context->setInputShape("spectrum", shape)) {
        throw std::runtime_error("the plan does not take " + std::to_string(frames) + " frames");
    }
    void* const input = allocate(spectrum.size());
    void* const output = allocate(spectrum.size());
    context->setTensorAddress("spectrum", input);
    context->setTensorAddress("mask", output);
    cudaStream_t stream = nullptr;
    check(cudaStreamCreate(&stream));
    std::vector<char> mask(spectrum.size());
    check(cudaMemcpyAsync(
        input, spectrum.data(), spectrum.size(), cudaMemcpyHostToDevice, stream));
    if (!context->enqueueV3(stream)) throw std::runtime_error("TensorRT refused the chunk");
    check(cudaMemcpyAsync(mask.data(), output, mask.size(), cudaMemcpyDeviceToHost, stream));
    check(cudaStreamSynchronize(stream));
    return mask;
}

void run(char const* plugin, char const* plan, char const* from, char const* to) {
    std::vector<char> const spectrum = read(from), bytes = read(plan);
    check(cudaFree(nullptr));  // the context of the GPU, or why there is none
    Logger logger;
    std::unique_ptr<nvinfer1::IRuntime> const runtime(
        need(nvinfer1::createInferRuntime(logger), "TensorRT does not start"));
    // Before the plan: it names its plugins, and the registry must know them.
    need(runtime->getPluginRegistry().loadLibrary(plugin),
        std::string(plugin) + " cannot be registered");
    std::unique_ptr<nvinfer1::ICudaEngine> const engine(
        need(runtime->deserializeCudaEngine(bytes.data(), bytes.size()),
            std::string(plan) + " cannot be loaded: build it on this GPU, with this TensorRT"));
    std::vector<char> const mask = infer(*engine, spectrum);
    std::ofstream(to, std::ios::binary).write(mask.data(), std::streamsize(mask.size()));
}

}  // namespace

int main(int count, char** words) {
    if (count != 5) {
        std::fprintf(stderr, "usage: %s PLUGIN PLAN SPECTRUM MASK\n", words[0]);
        return 2;
    }
    try {
        run(words[1], words[2], words[3], words[4]);
    } catch (std::exception const& error) {
        std::fprintf(stderr, "run_plan: %s.\n", error.what());
        return 1;
    }
    return 0;
}
