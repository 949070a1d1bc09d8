"""Multiply-adds of the network, counted from its configuration, without torch."""

from __future__ import annotations

from bsmamba2.config.model import ModelConfig, NetworkConfig

CHUNK = 64
"""Steps of a chunk of the scan, as in `bsmamba2.models.scan`."""


def network_flops(model: ModelConfig, frames: int) -> dict[str, float]:
    """FLOPs of one pass of the folded network, by part.

    A multiply-add counts as two. Matrix products and the convolution are counted, element-wise
    operations are not. The network as trained has a few more products, which folding merges.

    Args:
        model: Configuration of the network.
        frames: Frames of the spectrum.

    Returns:
        Name of the part -> FLOPs; their sum is the whole.
    """
    net, bands = model.network, len(model.network.band_widths)
    block_tokens = 2 * net.layers * bands * frames  # of all blocks together
    features = model.audio.bin_features * model.audio.bins
    return {
        "band_split": 2.0 * frames * features * net.d_model,
        "in_proj": 2.0 * block_tokens * net.d_model * 2 * net.d_in_proj,
        "convolution": 2.0 * block_tokens * 2 * net.d_xbc * net.d_conv,
        # one matrix for the output projections of both directions and the merge, and the residual's
        "output": 2.0 * block_tokens * (2 * net.d_inner + net.d_model) * net.d_model,
        "scan_time": 2.0 * net.layers * bands * _scan_flops(net, frames),
        "scan_bands": 2.0 * net.layers * frames * _scan_flops(net, bands),
        # the last layer has a value and a gate for every feature
        "masks": 2.0 * frames * net.d_mask * (bands * net.d_model + 2 * features),
    }


def _scan_flops(net: NetworkConfig, length: int) -> float:
    """FLOPs of one sequence and direction of the chunked scan."""
    total = 0.0
    for start in range(0, length, CHUNK):
        steps = min(CHUNK, length - start)
        total += 2.0 * steps**2 * (net.d_state + net.d_inner)  # C B^T, and the mask times x
        state = 2.0 * steps * net.d_state * net.d_inner
        total += state * (start > 0)  # C h: the first chunk starts at zero
        total += state * (start + steps < length)  # B^T x: the last chunk's is not needed
    return total


def in_proj_shape(model: ModelConfig, frames: int) -> tuple[int, int, int]:
    """(tokens, d_model, outputs) of a block's input projection, the largest product."""
    net = model.network
    return frames * len(net.band_widths), net.d_model, 2 * net.d_in_proj
