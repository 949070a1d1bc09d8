"""The least time that a chunk can take on a machine, from its arithmetic and memory traffic.

A stage is one operator that reads its inputs once and writes its outputs once, as in the exported
graph: product, scan, product. A stage takes the longer of two times, that of its FLOPs at the
measured rate of products and that of its bytes at the measured bandwidth; a chunk takes the sum
over all stages. The floor is that of this graph: fusing a product with the scan could go below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.common.flops import network_flops
from bsmamba2.config.model import ModelConfig

INT8_STAGES = ("in_proj", "output", "masks")
"""Stages whose products are int8 in an int8 file; between stages, activations are float32."""
Work = dict[str, tuple[float, float]]
"""Stage -> FLOPs and bytes of all its blocks together."""


def network_work(model: ModelConfig, frames: int) -> Work:
    """FLOPs and bytes of one chunk of `frames` frames, in float32."""
    net, flops = model.network, network_flops(model, frames)
    bands = len(net.band_widths)
    tokens, blocks = bands * frames, 2 * net.layers
    features = model.audio.bin_features * model.audio.bins
    outer, inner = 2 * net.d_in_proj, 2 * net.d_inner  # both directions, into and out of a scan
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
    for name in ("scan_time", "scan_bands"):  # half of the blocks run along each axis
        flops[name] += 0.5 * flops["convolution"]
    return {name: (flops[name], 4.0 * count) for name, count in values.items()}


def floors(work: Work, rates: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Precision -> floor_s and its stages: flops, bytes, compute_s, memory_s, floor_s.

    Args:
        work: From `network_work`.
        rates: Measured gflops of float32 products, gb_s and, if measured, gops of int8 products.
    """
    found = {"float32": _floor(work, rates, rates["gflops"])}
    if "gops" in rates:
        found["int8"] = _floor(work, rates, rates["gops"])
    return found


def _floor(work: Work, rates: Mapping[str, float], products: float) -> dict[str, Any]:
    stages = {}
    for name, (flops, moved) in work.items():
        compute_s = flops / (products if name in INT8_STAGES else rates["gflops"]) / 1e9
        memory_s = moved / rates["gb_s"] / 1e9
        stages[name] = {
            "flops": flops,
            "bytes": moved,
            "compute_s": compute_s,
            "memory_s": memory_s,
            "floor_s": max(compute_s, memory_s),
        }
    return {"floor_s": sum(stage["floor_s"] for stage in stages.values()), "stages": stages}
