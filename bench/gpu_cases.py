"""Inputs of the scan for the GPU: the model's sizes, usual values and those that hurt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bsmamba2.models.scan import ScanParameters

KINDS = ("usual", "strong decay", "dt near 0", "no decay", "silence within")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one direction."""

    n_heads: int
    headdim: int
    d_state: int

    @property
    def d_inner(self) -> int:
        """Channels inside the mixer."""
        return self.n_heads * self.headdim

    @property
    def d_xbc(self) -> int:
        """Channels of the convolution."""
        return self.d_inner + 2 * self.d_state

    @property
    def width(self) -> int:
        """Inputs."""
        return self.d_inner + self.d_xbc + self.n_heads

    def scan_bytes(self, tokens: int, itemsize: int) -> int:
        """What both directions must read and write: each input and output once."""
        return 2 * tokens * (self.width + self.d_inner) * itemsize


FULL = Sizes(n_heads=16, headdim=64, d_state=128)
"""The published model's."""
SMALL = Sizes(n_heads=2, headdim=32, d_state=32)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The operator's inputs."""

    zxbcdt: Tensor
    parameters: ScanParameters

    @property
    def arguments(self) -> tuple[Tensor, ScanParameters]:
        """What every form of the scan takes, before the attributes."""
        return self.zxbcdt, self.parameters

    def direction(self, number: int, width: int) -> tuple[Tensor, ScanParameters]:
        """Arguments of one direction, 0 forward, 1 backward."""
        zxbcdt = self.zxbcdt[..., number * width : (number + 1) * width]
        return zxbcdt, self.parameters.direction(number)


def make_case(
    N: int,
    L: int,
    sizes: Sizes,
    dtype: torch.dtype,
    device: torch.device,
    *,
    kind: str = "usual",
    seed: int = 0,
) -> Case:
    """Random inputs, with steps and decays as the network starts with.

    Args:
        N: Sequences.
        L: Steps.
        sizes: Of a direction.
        dtype: Of the signal and the convolution; the rest is float32.
        device: Where they are made.
        kind: One of KINDS.
        seed: Of the values.
    """
    random = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=device)

    def uniform(low: float, high: float) -> Tensor:
        shape = (2, sizes.n_heads)
        return low + (high - low) * torch.rand(shape, generator=random, device=device)

    zxbcdt = normal(N, L, 2 * sizes.width).to(dtype)
    dt_bias = torch.log(torch.expm1(torch.exp(uniform(-6.9, -2.3))))
    A = -uniform(1, 16)
    if kind == "strong decay":  # log decays sum to some -5000 in 64 steps
        dt_bias, A = dt_bias + 8, 3 * A
    elif kind == "dt near 0":
        dt_bias = dt_bias - 60
    elif kind == "no decay":
        A = 1e-7 * A
    elif kind == "silence within":
        zxbcdt[:, L // 3 : L - L // 3] = 0
    return Case(
        zxbcdt=zxbcdt,
        parameters=ScanParameters(
            conv_weight=(normal(2, sizes.d_xbc, 4) / 2).to(dtype),
            conv_bias=(normal(2, sizes.d_xbc) / 2).to(dtype),
            dt_bias=dt_bias,
            A=A,
            D=1 + normal(2, sizes.n_heads) / 2,
        ),
    )
