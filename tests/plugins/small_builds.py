"""Small sources of the layout that CMakeLists.txt builds, and what is in a cache."""

from __future__ import annotations

import shutil
from pathlib import Path

from bsmamba2.plugins import build

SIZE, ARCHITECTURE = "1:64:128", "90"
_REAL = ("CMakeLists.txt", "ptxas_log.sh", "include/bsm_scan.h")

_SCAN = """
#include "bsm_scan.h"
#include <cuda_runtime.h>
#include <vector>
#define X(dtype, headdim, d_state) void launch_##dtype##_##headdim##_##d_state(void*, cudaStream_t);
BSM_INSTANCE_LIST
#undef X
int bsm_scan_abi() { return BSM_SCAN_ABI; }
int bsm_scan_workspace(const BsmScan*, size_t*) { return std::vector<int>{BSM_OK}.at(0); }
int bsm_scan_enqueue(const BsmScan* scan, void* stream) {
#define X(t, p, s)                                                    \\
    if (scan->dtype == t && scan->headdim == p && scan->d_state == s) \\
        return launch_##t##_##p##_##s(scan->y, cudaStream_t(stream)), BSM_OK;
    BSM_INSTANCE_LIST
    return BSM_NO_KERNEL;
}
const char* bsm_scan_status_text(int) { return ""; }
const char* bsm_scan_cuda_error() { return cudaGetErrorString(cudaGetLastError()); }
"""
_INSTANCE = """
#include <cuda_fp16.h>
#define PASTE(t, p, s) launch_##t##_##p##_##s
#define NAME(t, p, s) PASTE(t, p, s)
__global__ void kernel(__half* y) { y[threadIdx.x] = __hadd(y[threadIdx.x], y[0]); }
void NAME(BSM_DTYPE, BSM_HEADDIM, BSM_D_STATE)(void* y, cudaStream_t stream) {
    kernel<<<1, 32, 0, stream>>>(static_cast<__half*>(y));
}
"""


def write_sources(folder: Path) -> Path:
    """The real CMakeLists.txt and header with a kernel of one line; no plugin."""
    for name in _REAL:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build.source_folder() / name, target)
    (folder / "cuda").mkdir()
    (folder / "cuda/scan.cu").write_text(_SCAN)
    (folder / "cuda/scan_instance.cu").write_text(_INSTANCE)
    return folder


def folders(cache: Path) -> list[Path]:
    """Finished builds in a cache."""
    return [path for path in (cache / "bsmamba2/plugins").glob("*/") if not path.suffix]


def leftovers(cache: Path) -> list[str]:
    """What should not stay there: neither a build nor its lock."""
    kept = {path.name for path in folders(cache)}
    return [
        path.name
        for path in (cache / "bsmamba2/plugins").iterdir()
        if path.name not in kept and path.suffix != ".lock"
    ]
