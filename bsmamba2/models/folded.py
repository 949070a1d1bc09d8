"""The network folded for inference: the same function in fewer and larger matrix products.

The algebra is exact and verified in float64: the weights of all norms are folded into adjacent
matrices, both directions share one input projection, the output projections of a block and its
merge become one matrix, and bands of equal width share a batched product. `export` turns this
into ONNX.

In half precision (`fold(network, torch.float16)`) the matrices and the signals between them have
that type; norms, steps, decays, skips and the mask stay float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsmamba2.config.model import ModelConfig
from bsmamba2.models.bands import BandSplit, mask_spectrum, spectrum_features, unit
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.dual_path import BidirectionalBlock
from bsmamba2.models.masks import MaskEstimator
from bsmamba2.models.scan import ScanParameters
from bsmamba2.models.scan_operator import bimamba2_scan

STEP_PARAMETERS = ("dt_bias", "A", "D")
"""Buffers of a block that stay float32 in half precision: decays are exponentials of them."""


class BandGroup(NamedTuple):
    """Neighbouring bands of equal width."""

    bands: slice
    n_bands: int
    features: slice


def band_groups(model: ModelConfig) -> Iterator[BandGroup]:
    """Yields the groups of bands, low to high."""
    band, feature = 0, 0
    for width, same in itertools.groupby(model.network.band_widths):
        count = len(list(same))
        size = count * width * model.audio.bin_features
        yield BandGroup(slice(band, band + count), count, slice(feature, feature + size))
        band, feature = band + count, feature + size


class FoldedBandSplit(nn.Module):
    """Band split with one batched product per group of bands."""

    def __init__(self, split: BandSplit, model: ModelConfig) -> None:
        super().__init__()
        self.groups = list(band_groups(model))
        for number, group in enumerate(self.groups):
            pairs: list[Any] = list(split.to_features[group.bands])  # norm, linear
            weights = [linear.weight * (norm.scale * norm.gamma) for norm, linear in pairs]
            self.register_buffer(f"weight_{number}", torch.stack(weights).mT.contiguous())
            self.register_buffer(
                f"bias_{number}", torch.stack([linear.bias for _, linear in pairs])[:, None]
            )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, frames, features) to (bands, batch * frames, d_model)."""
        outputs = []
        for number, group in enumerate(self.groups):
            weight, bias = self.get_buffer(f"weight_{number}"), self.get_buffer(f"bias_{number}")
            x = features[..., group.features].reshape(-1, group.n_bands, weight.shape[1])
            outputs.append(unit(x).to(weight.dtype).transpose(0, 1) @ weight + bias)
        return torch.cat(outputs)


class FoldedBlock(nn.Module):
    """A block: x @ residual + bias + scan(x / rms(x) @ in_proj) @ out_proj."""

    in_proj: Tensor
    out_proj: Tensor
    residual: Tensor
    bias: Tensor

    def __init__(self, block: BidirectionalBlock) -> None:
        super().__init__()
        directions: list[Any] = [block.forward_blocks[0], block.backward_blocks[0]]
        mixers = [direction.mixer for direction in directions]
        self.net = net = mixers[0].net
        merge = block.linear.weight[:, :, 0]  # (2 d_model, d_model): P^T
        merges = merge.split(net.d_model)
        buffers = {
            "in_proj": torch.cat(
                [d.norm.weight[:, None] * d.mixer.in_proj.weight.T for d in directions], dim=1
            ),
            "conv_weight": torch.stack([m.conv1d.weight[:, 0] for m in mixers]),
            "conv_bias": torch.stack([m.conv1d.bias for m in mixers]),
            "dt_bias": torch.stack([m.dt_bias for m in mixers]),
            "A": -torch.stack([m.A_log for m in mixers]).exp(),
            "D": torch.stack([m.D for m in mixers]),
            "out_proj": torch.cat(
                [
                    (m.norm.weight[:, None] * m.out_proj.weight.T) @ p
                    for m, p in zip(mixers, merges, strict=True)
                ]
            ),
            "residual": sum(merges, torch.eye(net.d_model).to(merge)),
            "bias": cast(Tensor, block.linear.bias).detach().clone(),  # the others are new tensors
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, d_model) to the same shape."""
        net = self.net
        y = bimamba2_scan(
            _normalised(x, net.norm_eps) @ self.in_proj,
            ScanParameters(*(self.get_buffer(name) for name in ScanParameters._fields)),
            n_heads=net.n_heads,
            d_state=net.d_state,
            eps=net.norm_eps,
        )
        out = torch.addmm(self.bias, x.reshape(-1, net.d_model), self.residual)
        out = torch.addmm(out, y.reshape(-1, 2 * net.d_inner), self.out_proj)
        return out.view_as(x)


def _normalised(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last axis, in the type of x."""
    if x.itemsize < 4:
        return F.rms_norm(x, x.shape[-1:], eps=eps)  # float32 inside, in one kernel
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class FoldedMasks(nn.Module):
    """Mask MLPs: one batched product for all bands, then one per group of bands."""

    hidden: Tensor
    hidden_bias: Tensor

    def __init__(self, masks: MaskEstimator, gamma: Tensor, model: ModelConfig) -> None:
        """Folds `gamma`, the scale of the final norm (d_model), into the first layers."""
        super().__init__()
        self.groups = list(band_groups(model))
        mlps: list[Any] = [cast(Any, band)[0] for band in masks.to_freqs]  # linear, tanh, linear
        hidden = torch.stack([first.weight.T for first, _, _ in mlps]) * gamma[:, None]
        self.register_buffer("hidden", hidden.contiguous())
        bias = torch.stack([first.bias for first, _, _ in mlps])
        self.register_buffer("hidden_bias", bias[:, None])
        for number, group in enumerate(self.groups):
            seconds = [second for _, _, second in mlps[group.bands]]
            weight = torch.stack([second.weight.T for second in seconds])
            bias = torch.stack([second.bias for second in seconds])[:, None]
            for part, w, b in zip(
                ("value", "gate"), weight.chunk(2, -1), bias.chunk(2, -1), strict=True
            ):
                self.register_buffer(f"{part}_{number}", w.contiguous())
                self.register_buffer(f"{part}_bias_{number}", b.contiguous())

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """(bands, batch * frames, d_model) to (batch, frames, features)."""
        hidden = torch.tanh(unit(_at_least_float32(x)).to(x.dtype) @ self.hidden + self.hidden_bias)
        outputs = []
        for number, group in enumerate(self.groups):
            # A product for each half of the gated linear unit: splitting one result would copy it.
            value, gate = (
                hidden[group.bands] @ self.get_buffer(f"{part}_{number}")
                + self.get_buffer(f"{part}_bias_{number}")
                for part in ("value", "gate")
            )
            outputs.append((value * torch.sigmoid(gate)).transpose(0, 1).flatten(1))
        features = _at_least_float32(torch.cat(outputs, dim=-1))
        return features.unflatten(0, (batch, -1))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.itemsize < 4 else x


class FoldedBSMamba2(nn.Module):
    """The network for inference: input and output of `BSMamba2`, no parameters, no gradients."""

    def __init__(self, network: BSMamba2) -> None:
        super().__init__()
        self.model = network.model
        self.band_split = FoldedBandSplit(network.band_split, self.model)
        self.blocks = nn.ModuleList(
            FoldedBlock(cast(BidirectionalBlock, block))
            for layer in network.layers
            for block in cast(nn.ModuleList, layer)
        )
        gamma = network.final_norm.scale * network.final_norm.gamma
        masks = cast(MaskEstimator, network.mask_estimators[0])
        self.masks = FoldedMasks(masks, gamma, self.model)

    def forward(self, spectrum: Tensor) -> Tensor:
        """(batch, channels, frames, bins, 2) to the mask of the same shape."""
        batch, _, frames = spectrum.shape[:3]
        bands, d_model = len(self.model.network.band_widths), self.model.network.d_model
        x = self.band_split(spectrum_features(spectrum))  # (bands, batch * frames, d_model)
        for time, band in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            # A literal number of bands tells a runtime the sequence length along bands.
            x = time(x.reshape(bands * batch, frames, d_model)).view(bands, -1, d_model)
            # Contiguous, because PyTorch would multiply frame by frame otherwise.
            x = band(x.transpose(0, 1).contiguous()).transpose(0, 1)
        return mask_spectrum(self.masks(x, batch), self.model.audio.channels)


def fold(network: BSMamba2, dtype: torch.dtype | None = None) -> FoldedBSMamba2:
    """Returns the network folded for inference, on the same device.

    Args:
        network: A trained network; it is not changed.
        dtype: Type of the matrices and their products; None keeps the network's. Weights are
            rounded once, after folding. In half precision, spectrum and mask stay float32.
    """
    with torch.no_grad():
        folded = FoldedBSMamba2(network).eval()
        if dtype is not None:
            _round_matrices(folded, dtype)
    return folded


def _round_matrices(folded: FoldedBSMamba2, dtype: torch.dtype) -> None:
    steps = torch.promote_types(dtype, torch.float32)
    for module in folded.modules():
        for name, tensor in module.named_buffers(recurse=False):
            setattr(module, name, tensor.to(steps if name in STEP_PARAMETERS else dtype))
