"""How long a block of the network takes at least, by each of the things that a scan uses up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.kernels.gpus import FP64_LANES, ISSUE, L1_BYTES, MUFU_LANES, WARP, Rates
from bench.kernels.sass import KINDS, Kernel, Place
from bench.kernels.trips import Counts, Source

_FLOP = 4096  # of an m16n8k16 instruction
_L1_PASS = 128  # bytes
_ACCESSOR = re.compile(r"BSM_DEVICE|return|static constexpr|: ")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One of the two ways through the spectrum: along time or along bands."""

    name: str
    sequences: int
    steps: int


def instruction_mix(kernel: Kernel, counts: Counts) -> dict[str, dict[str, float]]:
    """Instructions of a warp by kind: as the code has them, and as a block runs them."""
    static = dict.fromkeys(KINDS, 0)
    run = dict.fromkeys(KINDS, 0.0)
    for each, weight in zip(kernel.code, counts.weights, strict=True):
        static[each.kind] += 1
        run[each.kind] += weight
    return {
        name: {"static": static[name], "run": round(run[name], 1)} for name in KINDS if static[name]
    }


def stages(kernel: Kernel, counts: Counts, source: Source) -> list[dict[str, Any]]:
    """Instructions that a warp runs by the statement of the kernel's file that they come from."""
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
    kernel: Kernel,
    counts: Counts,
    plan: Mapping[str, Any],
    *,
    way: Way,
    n_bytes: int,
    rates: Rates,
    resident: int,
) -> dict[str, Any]:
    """Milliseconds of one launch, by what is used up.

    Args:
        kernel: Its code.
        counts: How often a warp runs it.
        plan: What probe.cu prints.
        way: Sequences and steps.
        n_bytes: Read and written, each once.
        rates: Of the GPU.
        resident: Blocks that run on a multiprocessor at a time.
    """
    blocks = 2 * way.sequences * plan["blocks_per_row"]
    warps = blocks * plan["warps"]
    used = dict.fromkeys(("issue", "mufu", "fp64", "l1", "tensor"), 0.0)  # of a warp
    for each, weight in zip(kernel.code, counts.weights, strict=True):
        used["issue"] += weight
        used["mufu"] += weight * (each.kind == "mufu")
        used["fp64"] += weight * (each.kind == "fp64")
        used["l1"] += weight * each.l1_passes
        used["tensor"] += weight * (each.kind == "tensor")
    clocks = {  # of a multiprocessor, for one warp
        "issue slots": used["issue"] / ISSUE,
        "special functions": used["mufu"] * WARP / MUFU_LANES,
        "fp64": used["fp64"] * WARP / FP64_LANES,
        "L1 and shared memory": used["l1"] * _L1_PASS / L1_BYTES,
        # an m16n8k8 of tf32 is half of an m16n8k16 of 16 bits, at half the rate
        "tensor cores": used["tensor"] * _FLOP / rates.tensor_flops,
    }
    per_ms = [rates.multiprocessors * ghz * 1e6 for ghz in rates.clocks_ghz]
    ms = {name: [each * warps / rate for rate in per_ms] for name, each in clocks.items()}
    memory_ms = n_bytes / rates.dram_gb_s / 1e6
    ms = {"memory": [memory_ms, memory_ms]} | ms
    waves = blocks / (rates.multiprocessors * resident)
    bound = max(ms, key=lambda name: ms[name][0])
    return {
        "blocks": blocks,
        "waves": round(waves, 2),
        "bytes": n_bytes,
        "flop": used["tensor"] * warps * _FLOP / (2 if plan["item_bytes"] == 4 else 1),
        "instructions": used["issue"] * warps,
        "ms": {name: [round(value, 4) for value in values] for name, values in ms.items()},
        "bound": bound,
    }
