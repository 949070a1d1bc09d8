"""Names and shapes of the network's tensors, derived from the configuration without torch.

The names are those of the published checkpoints, so weights move between the authors' code,
Music-Source-Separation-Training and this package without renaming.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bsmamba2.config.model import ModelConfig, NetworkConfig
from bsmamba2.config.reading import shown
from bsmamba2.errors import CheckpointError

BLOCKS = ("time", "band")  # layers.{l}.0 and layers.{l}.1
DIRECTIONS = ("forward_blocks", "backward_blocks")

Shape = tuple[int, ...]
_LISTED = 3  # names that a message lists for each kind of problem


def tensor_shapes(model: ModelConfig) -> dict[str, Shape]:
    """Returns name and shape of every tensor in the network's state dict, in its order."""
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
    """Returns the number of parameters of the network."""
    return sum(math.prod(shape) for shape in tensor_shapes(model).values())


def check_shapes(
    found: Mapping[str, Shape], model: ModelConfig, path: object, *, hint: str = ""
) -> None:
    """Checks that names and shapes are exactly those of the configuration.

    Args:
        found: Names and shapes in the file.
        model: The configuration that they should fit.
        path: The file, for the message.
        hint: End of the message.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another shape; the message lists some.
    """
    wanted = tensor_shapes(model)
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    misshapen = [
        f"{name} is {list(found[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != shape
    ]
    kinds = {"missing": missing, "unknown": extra, "of another shape": misshapen}
    problems = [f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds.items() if names]
    if problems:
        raise CheckpointError(
            f"{path} does not fit a network of {len(wanted)} tensors: {', '.join(problems)}{hint}."
        )


def listed(names: list[str]) -> str:
    """Formats the first few names, and how many more there are."""
    more = len(names) - _LISTED
    return ", ".join(shown(name, 120)[1:-1] for name in names[:_LISTED]) + (
        f" and {more} more" if more > 0 else ""
    )


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
