"""The instructions that a warp issues, and lower bounds on a scan's time, one per resource."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bench.kernels.gpus import WARP
from bench.kernels.sass import KINDS, Kernel, Place
from bench.kernels.trips import Counts, Source

_CLOCKS_GHZ = (1.755, 1.98)
RATES = {
    "gpu": "H200",
    "clocks_ghz": _CLOCKS_GHZ,
    "sources": (
        "132 multiprocessors, at most 1.98 GHz; 1.755 GHz under load is assumed",
        "4.3 TB/s: measured with a copy on an H200",
        "mma.sync: assumed to reach 62 % of wgmma's 4096 FLOP per clock and multiprocessor (about "
        "what arXiv 2402.13499 reports for another Hopper GPU), half of that in tf32",
        "per clock and multiprocessor: 16 lanes of MUFU, 128 B of L1 and shared memory, 4 issued "
        "instructions (CUDA C++ Programming Guide, instruction throughput)",
    ),
}
_MULTIPROCESSORS, _DRAM_GB_S = 132, 4300.0
_ISSUE, _MUFU_LANES = 4, 16  # per clock and multiprocessor of compute capability 9.0
_TENSOR_FLOPS = 0.62 * 4096  # likewise, for 16-bit products by mma.sync
_FLOP = 4096  # per m16n8k16 instruction
_ACCESSOR = re.compile(r"BSM_DEVICE|return|static constexpr|: ")


def instruction_mix(kernel: Kernel, counts: Counts) -> dict[str, dict[str, float]]:
    """Instructions of a warp by kind: how many the code has, and how many a block runs."""
    static = dict.fromkeys(KINDS, 0)
    run = dict.fromkeys(KINDS, 0.0)
    for each, weight in zip(kernel.code, counts.weights, strict=True):
        static[each.kind] += 1
        run[each.kind] += weight
    return {
        name: {"static": static[name], "run": round(run[name], 1)} for name in KINDS if static[name]
    }


def stages(kernel: Kernel, counts: Counts, source: Source) -> list[dict[str, Any]]:
    """Instructions that a warp runs, by the statement in the kernel's file that they come from."""
    found: dict[Place, float] = {}
    for each, weight in zip(kernel.code, counts.weights, strict=True):
        own = [place for place in each.places if place[0] == f"{kernel.short_name}.cuh"]
        calls = [place for place in own if not _ACCESSOR.match(source.line(place))]
        if calls:
            found[calls[0]] = found.get(calls[0], 0.0) + weight
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return [
        {"statement": source.statement(place), "run": round(run, 1)}
        for place, run in ordered
        if run >= sum(found.values()) / 200
    ]


def bounds(
    kernel: Kernel, counts: Counts, launch: Mapping[str, Any], *, n_bytes: int
) -> dict[str, list[float]]:
    """Least milliseconds of one launch by resource, at the clock under load and the highest clock.

    Args:
        kernel: The kernel's code.
        counts: How often a warp runs each instruction.
        launch: What probe.cu prints.
        n_bytes: Bytes read and written, each once.
    """
    weighted = list(zip(kernel.code, counts.weights, strict=True))

    def issued(kind: str) -> float:
        return sum(weight for each, weight in weighted if each.kind == kind)

    clocks = {  # clocks of a multiprocessor, for one warp
        "issue slots": sum(counts.weights) / _ISSUE,
        "special functions": issued("mufu") * WARP / _MUFU_LANES,
        "L1 and shared memory": sum(each.l1_passes * weight for each, weight in weighted),
        # an m16n8k8 of tf32 is half of an m16n8k16 of 16 bits, at half the rate
        "tensor cores": issued("tensor") * _FLOP / _TENSOR_FLOPS,
    }
    warps = launch["blocks"] * launch["warps"]
    memory_ms = n_bytes / _DRAM_GB_S / 1e6
    return {"memory": [round(memory_ms, 4)] * 2} | {
        name: [round(each * warps / (_MULTIPROCESSORS * ghz * 1e6), 4) for ghz in _CLOCKS_GHZ]
        for name, each in clocks.items()
    }


def waves(launch: Mapping[str, Any], resident: int) -> float:
    """How often a launch fills the GPU, with `resident` blocks per multiprocessor."""
    return round(launch["blocks"] / (_MULTIPROCESSORS * resident), 2)
