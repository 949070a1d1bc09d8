"""The machine of a measurement: processor, load, versions; no host names, no paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from bsmamba2.system.cores import usable_cores
from bsmamba2.system.revision import git_revision

_ISA = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_PACKAGES = ("bsmamba2", "numpy", "scipy", "onnxruntime", "onnxruntime-gpu", "torch", "onnx")


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, vector instructions and memory."""
    fields = _cpuinfo()
    flags = set(fields.get("flags", "").split())
    pages = {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if pages else 0
    return {
        "cpu": fields.get("model name", platform.processor() or "unknown"),
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "isa": [name for name in _ISA if name in flags],
        "memory_gib": round(memory / 2**30, 1) or None,
        "system": platform.system(),
    }


def _cpuinfo() -> dict[str, str]:
    """Fields of the first processor; empty if the system has no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def describe_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages used (None: not installed), and the code's commit."""
    versions = {"python": platform.python_version()}
    return (
        versions | {name: version(name) for name in _PACKAGES} | {"commit": git_revision(__file__)}
    )


def version(package: str) -> str | None:
    """Version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def load_average() -> list[float] | None:
    """Load averages over the last 1, 5 and 15 minutes; None if the system has none."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
