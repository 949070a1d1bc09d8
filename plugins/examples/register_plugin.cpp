// A library that registers the scan's plugin with TensorRT when it is opened. For servers that open
// libraries and do no more, as Triton's tensorrt backend does with its option `plugins`.
//
//     g++ -std=c++17 -O2 -shared -fPIC register_plugin.cpp -o libbsm_trt_register.so -ldl
//
// It lies beside libbsm_trt_plugin.so, or BSM_TRT_PLUGIN names that. TensorRT must be in the process
// already: LD_PRELOAD is too early. It needs no headers, so one library serves all versions.

#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr char const* kRTX = "libtensorrt_rtx.so";

bool is_file(std::string const& path, char const* start) {
    size_t const slash = path.rfind('/');
    return path.compare(slash == std::string::npos ? 0 : slash + 1, std::strlen(start), start) == 0;
}

// The path of the TensorRT or TensorRT-RTX that this process has open; empty if there is none.
std::string loaded_tensorrt() {
    std::string found;
    auto const look = [](dl_phdr_info* info, size_t, void* result) {
        std::string const path = info->dlpi_name;
        if (!is_file(path, "libnvinfer.so") && !is_file(path, kRTX)) return 0;
        *static_cast<std::string*>(result) = path;
        return 1;
    };
    dl_iterate_phdr(look, &found);
    return found;
}

template <typename Function>
Function* find(void* library, char const* name) {
    return reinterpret_cast<Function*>(dlsym(library, name));
}

// Where IPluginRegistry::loadLibrary is in the registry's table of virtual functions; -1 for
// versions that nobody looked at. (Read in the headers of 10.14 and 11.1; tried on TensorRT-RTX 1.7.)
int load_library_slot(void* library, bool rtx) {
    constexpr int kTEN = 10, kELEVEN = 6;
    auto const major_of = find<int32_t()>(library, "getInferLibMajorVersion");
    auto const minor_of = find<int32_t()>(library, "getInferLibMinorVersion");
    if (major_of == nullptr || minor_of == nullptr) return -1;
    int32_t const major = major_of();
    if (rtx) return major == 1 && minor_of() >= 7 ? kELEVEN : -1;
    return major == 10 ? kTEN : (major == 11 ? kELEVEN : -1);
}

std::string plugin_path() {
    if (char const* const named = std::getenv("BSM_TRT_PLUGIN")) return named;
    Dl_info own{};
    dladdr(reinterpret_cast<void*>(&plugin_path), &own);
    std::string const path = own.dli_fname != nullptr ? own.dli_fname : "";
    return path.substr(0, path.rfind('/') + 1) + "libbsm_trt_plugin.so";
}

// Says what is wrong; nothing if all is well.
std::string register_plugin() {
    std::string const path = loaded_tensorrt();
    if (path.empty()) return "TensorRT is not in this process yet: open this library later.";
    void* const library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) return path + " is TensorRT and cannot be opened.";
    auto const registry = find<void*()>(library, "getPluginRegistry");
    int const slot = load_library_slot(library, is_file(path, kRTX));
    if (registry == nullptr || slot < 0) {
        return path + " is a TensorRT that this library does not know: load the plugin with "
            "IPluginRegistry::loadLibrary.";
    }
    std::string const plugin = plugin_path();
    using LoadLibrary = void* (*)(void* registry, char const* path);
    void* const object = registry();
    auto const load = reinterpret_cast<LoadLibrary>((*static_cast<void***>(object))[slot]);
    if (load(object, plugin.c_str()) != nullptr) return {};
    return plugin + " was not registered: TensorRT's log says why.";
}

[[gnu::constructor]] void open() {
    std::string const problem = register_plugin();
    if (!problem.empty()) std::fprintf(stderr, "libbsm_trt_register: %s\n", problem.c_str());
}

}  // namespace
