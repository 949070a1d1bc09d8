"""Names and shapes of the network's tensors, from the configuration alone (no torch).

The names are those of the published checkpoints, so weights move between the authors' code,
Music-Source-Separation-Training and this one without renaming.
"""

from __future__ import annotations

import math

from bsmamba2.config import ModelConfig, NetworkConfig

BLOCKS = ("time", "band")  # layers.{l}.0 and layers.{l}.1
DIRECTIONS = ("forward_blocks", "backward_blocks")

Shape = tuple[int, ...]


def tensor_shapes(model: ModelConfig) -> dict[str, Shape]:
    """Every tensor of the network's state dict, in its order."""
    net = model.network
    shapes: dict[str, Shape] = {}
    features = [model.audio.bin_features * width for width in net.band_widths]
    for k, d in enumerate(features):
        name = f"band_split.to_features.{k}"
        shapes[f"{name}.0.gamma"] = (d,)
        shapes[f"{name}.1.weight"] = (net.d_model, d)
        shapes[f"{name}.1.bias"] = (net.d_model,)
    for layer in range(net.layers):
        for block, _ in enumerate(BLOCKS):
            name = f"layers.{layer}.{block}"
            for direction in DIRECTIONS:
                shapes |= _mixer_shapes(net, f"{name}.{direction}.0")
            shapes[f"{name}.linear.weight"] = (2 * net.d_model, net.d_model, 1)
            shapes[f"{name}.linear.bias"] = (net.d_model,)
    shapes["final_norm.gamma"] = (net.d_model,)
    for k, d in enumerate(features):
        name = f"mask_estimators.0.to_freqs.{k}.0"
        shapes[f"{name}.0.weight"] = (net.d_mask, net.d_model)
        shapes[f"{name}.0.bias"] = (net.d_mask,)
        shapes[f"{name}.2.weight"] = (2 * d, net.d_mask)
        shapes[f"{name}.2.bias"] = (2 * d,)
    return shapes


def parameter_count(model: ModelConfig) -> int:
    """Number of parameters of the network."""
    return sum(math.prod(shape) for shape in tensor_shapes(model).values())


def _mixer_shapes(net: NetworkConfig, name: str) -> dict[str, Shape]:
    return {
        f"{name}.norm.weight": (net.d_model,),
        f"{name}.mixer.dt_bias": (net.n_heads,),
        f"{name}.mixer.A_log": (net.n_heads,),
        f"{name}.mixer.D": (net.n_heads,),
        f"{name}.mixer.in_proj.weight": (net.d_in_proj, net.d_model),
        f"{name}.mixer.conv1d.weight": (net.d_xbc, 1, net.d_conv),
        f"{name}.mixer.conv1d.bias": (net.d_xbc,),
        f"{name}.mixer.norm.weight": (net.d_inner,),
        f"{name}.mixer.out_proj.weight": (net.d_model, net.d_inner),
    }
