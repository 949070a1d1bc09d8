"""Mask estimation: from one vector per band to the complex mask of its bins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bsmamba2.config.model import ModelConfig


class MaskEstimator(nn.Module):
    """An MLP per band: linear, tanh, linear, gated linear unit. The mask is unbounded."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        net = model.network
        self.to_freqs = nn.ModuleList()
        for width in net.band_widths:
            features = model.audio.bin_features * width
            mlp = nn.Sequential(
                nn.Linear(net.d_model, net.d_mask),
                nn.Tanh(),
                nn.Linear(net.d_mask, 2 * features),
            )
            self.to_freqs.append(nn.Sequential(mlp, nn.GLU(dim=-1)))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, bands, d_model) to (batch, frames, features)."""
        bands = x.unbind(dim=2)
        return torch.cat([f(b) for f, b in zip(self.to_freqs, bands, strict=True)], dim=-1)
