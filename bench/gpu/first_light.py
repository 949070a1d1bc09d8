"""First light: one float16 scan a path, its distance from the chunked form, and what ran.

python bench/gpu/first_light.py libbsm_scan.so
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from torch.profiler import ProfilerActivity, profile

from bench.common.scans import FULL, ScanInputs, scan_inputs
from bsmamba2.models.cuda_scan import library_scan
from bsmamba2.models.scan import bimamba2_scan_chunked
from bsmamba2.plugins.library import ScanLibrary


def main(library: ScanLibrary) -> None:
    """Prints one line a path, and on a GPU its kernels."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    for N, L in ((62, 801), (801, 62)) if on_gpu else ((1, 66), (1, 62)):
        inputs = scan_inputs(N, L, FULL, device=device, dtype=torch.float32).to(torch.float16)
        expected = bimamba2_scan_chunked(*inputs.to(torch.float32).arguments, **inputs.attributes)
        y = library_scan(library, *inputs.arguments, **inputs.attributes)
        again = library_scan(library, *inputs.arguments, **inputs.attributes)
        rms = (y.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        same = torch.equal(y, again)
        print(f"N={N} L={L}: relative rms {rms:.1e} (4e-4 expected), repeatable {same}", flush=True)
        if on_gpu:
            _print_kernels(library, inputs)


def _print_kernels(library: ScanLibrary, inputs: ScanInputs) -> None:
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(5):
            library_scan(library, *inputs.arguments, **inputs.attributes)
        torch.cuda.synchronize()
    kernels = profiled.key_averages()
    for kernel in kernels:
        microseconds = kernel.self_device_time_total / max(kernel.count, 1)
        print(f"   {microseconds:9.1f} us x{kernel.count} {kernel.key[:90]}")
    apart = any("normalise" in kernel.key for kernel in kernels)
    print("   clusters:", "NOT USED, look at fits_cluster" if apart else "used", flush=True)


if __name__ == "__main__":
    main(ScanLibrary(sys.argv[1]))
