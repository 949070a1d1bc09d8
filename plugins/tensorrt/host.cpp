#include "host.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstring>

namespace bsm {
namespace {

constexpr int kPLAIN = 0, kVERSIONED = 4, kUNKNOWN = -1;

// The number that a function without arguments returns, -1 where the library has none.
int32_t call(void* library, char const* function) noexcept {
    using Function = int32_t (*)() noexcept;
    auto const get = reinterpret_cast<Function>(dlsym(library, function));
    return get != nullptr ? get() : -1;
}

int slot_of(bool rtx, int32_t major, int32_t minor) noexcept {
    if (rtx) return major > 1 || (major == 1 && minor >= 7) ? kVERSIONED : kUNKNOWN;
    return major >= 11 ? kVERSIONED : (major == 10 ? kPLAIN : kUNKNOWN);
}

}  // namespace

int logger_slot(void const* object) noexcept {
    // An object starts with the address of its table, which lies in the library that made it.
    void const* const table = *static_cast<void const* const*>(object);
    Dl_info image{};
    if (dladdr(table, &image) == 0 || image.dli_fname == nullptr) return kUNKNOWN;
    void* const library = dlopen(image.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) return kUNKNOWN;  // TensorRT linked into a program
    char const* const slash = std::strrchr(image.dli_fname, '/');
    char const* const name = slash != nullptr ? slash + 1 : image.dli_fname;
    int const slot = slot_of(std::strstr(name, "tensorrt_rtx") != nullptr,
        call(library, "getInferLibMajorVersion"), call(library, "getInferLibMinorVersion"));
    dlclose(library);  // takes back the count of this dlopen only
    return slot;
}

}  // namespace bsm
