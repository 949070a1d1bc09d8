"""The least time a chunk can take on a machine: its arithmetic or its memory traffic, by stage.

A stage is one operator that reads its inputs once and writes its outputs once, as in the exported
graph: product, scan, product. What a stage needs is the longer of two times, of its FLOPs at the
rate measured for products and of its bytes at the bandwidth measured; a chunk needs their sum. So
the floor is of this graph: fusing a product with the scan would go below it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.common.flops import network_flops
from bsmamba2.config.model import ModelConfig

FLOAT = 4
"""Bytes; activations are float32 in the int8 files, too."""
INT8_STAGES = ("in_proj", "output", "masks")
"""Whose products are int8 in such a file."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage has to do, all its blocks together."""

    flops: float
    bytes: float


def network_work(model: ModelConfig, frames: int) -> dict[str, Work]:
    """Stage -> work for one chunk, float32.

    Args:
        model: Sizes.
        frames: Frames of the spectrum.
    """
    net, flops = model.network, network_flops(model, frames)
    bands = len(net.band_widths)
    tokens, blocks = bands * frames, 2 * net.layers
    features = model.audio.bin_features * model.audio.bins
    outer, inner = 2 * net.d_in_proj, 2 * net.d_inner  # of both directions, into and out of a scan
    half = 0.5 * flops["convolution"]  # blocks along time and along bands have as many tokens
    scan = net.layers * tokens * (outer + inner)
    values = {
        "band_split": features * (frames + net.d_model) + tokens * net.d_model,
        "in_proj": blocks * (tokens * (net.d_model + outer) + net.d_model * outer),
        "scan_time": scan,
        "scan_bands": scan,
        # the residual is read, too
        "output": blocks * (tokens * (inner + 2 * net.d_model) + inner * net.d_model),
        "masks": tokens * (net.d_model + 2 * net.d_mask)
        + net.d_mask * (bands * net.d_model + 2 * features)
        + 2 * frames * features,
    }
    arithmetic = {name: flops[name] for name in values}
    arithmetic["scan_time"] += half
    arithmetic["scan_bands"] += half
    return {
        name: Work(flops=arithmetic[name], bytes=FLOAT * float(count))
        for name, count in values.items()
    }


def floor_s(
    work: dict[str, Work], *, gflops: float, gb_s: float | None, int8_gops: float | None = None
) -> dict[str, dict[str, float]]:
    """Stage -> flops, bytes, compute_s, memory_s, floor_s.

    Args:
        work: From `network_work`.
        gflops: Measured rate of float32 products.
        gb_s: Measured bandwidth; None leaves memory out.
        int8_gops: Measured rate of int8 products, for the stages that have them; None for float32.
    """
    stages = {}
    for name, stage in work.items():
        rate = int8_gops if int8_gops and name in INT8_STAGES else gflops
        compute = stage.flops / rate / 1e9
        memory = stage.bytes / gb_s / 1e9 if gb_s else 0.0
        stages[name] = {
            "flops": stage.flops,
            "bytes": stage.bytes,
            "compute_s": compute,
            "memory_s": memory,
            "floor_s": max(compute, memory),
        }
    return stages


def total_s(stages: dict[str, dict[str, float]]) -> float:
    """Of a chunk."""
    return sum(stage["floor_s"] for stage in stages.values())
