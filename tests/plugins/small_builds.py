"""Small sources in the layout that a build expects, and what a build leaves in the cache."""

from __future__ import annotations

import shutil
from pathlib import Path

from bsmamba2.plugins import build

SIZE = "1:64:128"

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
    """The real header with a kernel of one line; no plugin."""
    for name in ("cuda", "include"):
        (folder / name).mkdir(parents=True)
    shutil.copy(build.source_folder() / "include/bsm_scan.h", folder / "include")
    (folder / "cuda/scan.cu").write_text(_SCAN)
    (folder / "cuda/scan_instance.cu").write_text(_INSTANCE)
    return folder


def leftovers(cache: Path) -> list[str]:
    """Files in the cache that are neither a finished build nor a lock."""
    return [
        path.name
        for path in (cache / "bsmamba2/plugins").iterdir()
        if path.suffix != ".lock" and not (path / "build.json").exists()
    ]
