"""Random networks and spectra for tests."""

from __future__ import annotations

import torch
from foreign_files import model_of
from torch import Tensor

from bsmamba2.config.model import ModelConfig
from bsmamba2.models.bsmamba2 import BSMamba2


def random_network(
    model: ModelConfig | None = None, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> BSMamba2:
    """Makes a network (by default a tiny one) in which no parameter has its initial value.

    This matters for norm weights, skips and biases: their initial 1 or 0 would hide that one is
    lost.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BSMamba2(model or model_of("tiny")).double()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                spread = 0.1 if parameter.ndim > 1 else 0.3
                noise = torch.randn_like(parameter) * spread
                parameter.mul_(1 + noise)
                if name.endswith("bias"):
                    parameter.add_(noise)
    return network.to(dtype).eval()


def random_spectrum(
    batch: int = 1, frames: int = 3, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    """Makes noise at the level of music: (batch, 2, frames, 1025, 2)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 2, frames, 1025, 2, generator=generator, dtype=torch.float64).to(
        dtype
    )
