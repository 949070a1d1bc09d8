"""The GPU that a measurement was made on, and the scan library built for it."""

from __future__ import annotations

import subprocess

import torch

from bench.common.machine import describe_versions, version
from bench.common.scans import FULL, SMALL
from bench.gpu.part import Part

_PACKAGES = ("triton", "mamba-ssm", "causal-conv1d", "cupy-cuda13x", "tensorrt", "tensorrt-rtx")
_QUERY = (
    "name",
    "driver_version",
    "memory.total",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.limit",
)


def gpu(part: Part) -> None:
    """Records GPU, driver, compilers and versions; finds or builds libbsm_scan for this GPU."""
    smi = _last_line("nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader") or ""
    part.values |= {
        "nvidia_smi": dict(zip(_QUERY, smi.split(", "), strict=False)),
        "nvcc": _last_line("nvcc", "--version"),
        "cuda_of_torch": torch.version.cuda,
        "versions": describe_versions() | {name: version(name) for name in _PACKAGES},
    }
    if part.job.rehearsal:
        return
    properties = torch.cuda.get_device_properties(part.device)
    part.values |= {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(getattr(properties, "L2_cache_size", 0) / 2**20) or None,
    }
    part.save()
    from bsmamba2.plugins.build import build_libraries

    sizes = [f"{t}:{s.headdim}:{s.d_state}" for t in range(3) for s in (FULL, SMALL)]
    sizes += [f"{t}:32:64" for t in range(3)]  # the odd size of the sanitizer's cases
    libraries = build_libraries(
        architectures=f"{properties.major}{properties.minor}",
        plugin=False,
        sizes=sizes,
        report=part.say,
    )
    log = libraries.log.read_text(errors="replace")
    part.values |= {"library": str(libraries.scan), "ptxas": log[-20000:]}


def _last_line(*command: str) -> str | None:
    """The last line that a program prints; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else None
