"""The GPU that a measurement was made on, and the scan library built for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch

from bench.common.machine import describe_versions
from bench.common.scans import FULL, SMALL
from bench.gpu.part import Part
from bsmamba2.cli.doctor_checks import version

_PACKAGES = ("triton", "mamba-ssm", "causal-conv1d", "cupy-cuda13x", "safetensors")
_PACKAGES += ("tensorrt", "tensorrt-rtx")
_QUERY = (
    "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit,mig.mode.current"
)


def gpu(part: Part) -> None:
    """GPU, driver, compilers and versions."""
    part.values |= {
        "nvidia_smi": _nvidia_smi(),
        "nvcc": _last_line("nvcc", "--version"),
        "cuda_of_torch": torch.version.cuda,
        "versions": describe_versions() | {name: version(name) for name in _PACKAGES},
        "mamba_ssm_commit": _commit(part.job.mamba_ssm),
    }
    if part.device.type == "cuda":
        properties = torch.cuda.get_device_properties(part.device)
        part.values |= {
            "name": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "l2_mib": round(getattr(properties, "L2_cache_size", 0) / 2**20) or None,
        }


def build(part: Part) -> None:
    """Builds libbsm_scan for this GPU, or finds it in the cache; `library` is its path."""
    if part.job.library:
        part.values |= {"library": part.job.library, "built": False}
        return
    from bsmamba2.plugins.build import build_libraries

    major, minor = torch.cuda.get_device_capability(part.device)
    sizes = [f"{t}:{s.headdim}:{s.d_state}" for t in range(3) for s in (FULL, SMALL)]
    sizes += [f"{t}:32:64" for t in range(3)]  # the sanitizer's odd one
    libraries = build_libraries(
        architectures=f"{major}{minor}", plugin=False, sizes=sizes, report=part.say
    )
    part.values |= {
        "library": str(libraries.scan),
        "built": True,
        "architectures": libraries.architectures,
        "library_mib": round(libraries.scan.stat().st_size / 2**20, 1),
        "ptxas": libraries.log.read_text(errors="replace")[-20000:],
    }


def _nvidia_smi() -> dict[str, str] | None:
    line = _last_line("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader", "-i", "0")
    values = [value.strip() for value in (line or "").split(",")]
    names = _QUERY.split(",")
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else None


def _last_line(*command: str) -> str | None:
    """What a program prints last; None where it is absent or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else None


def _commit(folder: str) -> Any:
    """Short hash of a checkout, if it is one."""
    if not folder or not (Path(folder) / ".git").exists():
        return None
    return _last_line("git", "-C", folder, "describe", "--always", "--dirty")
