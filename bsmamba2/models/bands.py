"""Band split: from the bins of a spectrum to one vector per band."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bsmamba2.config.model import ModelConfig


def unit(x: Tensor) -> Tensor:
    """x / max(||x||_2, 1e-12) over the last axis.

    The norm is clamped instead of adding a constant under the root, so digital silence stays 0.
    """
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-12)


class UnitNorm(nn.Module):
    """Normalises: unit(x) * sqrt(d) * gamma."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = math.sqrt(features)
        self.gamma = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) to the same shape."""
        return unit(x) * (self.scale * self.gamma)


def spectrum_features(spectrum: Tensor) -> Tensor:
    """(batch, channels, frames, bins, 2) to (batch, frames, features).

    A bin's features are [L.re, L.im, R.re, R.im]: bins first, then channels, then parts.
    """
    return spectrum.permute(0, 2, 3, 1, 4).flatten(2)


def mask_spectrum(features: Tensor, channels: int) -> Tensor:
    """The inverse of `spectrum_features`."""
    return features.unflatten(-1, (-1, channels, 2)).permute(0, 3, 1, 2, 4)


class BandSplit(nn.Module):
    """Normalises each band's features and maps them linearly to d_model."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.sizes = [model.audio.bin_features * width for width in model.network.band_widths]
        self.to_features = nn.ModuleList(
            nn.Sequential(UnitNorm(size), nn.Linear(size, model.network.d_model))
            for size in self.sizes
        )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, frames, features) to (batch, frames, bands, d_model)."""
        bands = features.split(self.sizes, dim=-1)
        mapped = [band(x) for band, x in zip(self.to_features, bands, strict=True)]
        return torch.stack(mapped, dim=2)
