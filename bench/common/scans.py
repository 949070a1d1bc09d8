"""Usual and extreme inputs of the scan, for the tests and `bench/gpu`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bsmamba2.formats.operator import INPUTS
from bsmamba2.models.scan import ScanParameters, Sizes

LENGTHS = (1, 2, 3, 4, 62, 63, 64, 65, 128, 129, 801)
EXTREMES = ("strong decay", "dt near 0", "dt large", "no decay", "decay stops", "silence within")


def head_sizes(n_heads: int, headdim: int, d_state: int) -> Sizes:
    """Sizes of one direction."""
    return Sizes(d_inner=n_heads * headdim, d_state=d_state, n_heads=n_heads)


def scan_bytes(sizes: Sizes, tokens: int, itemsize: int) -> int:
    """Bytes that both directions must read and write: each input and output once."""
    return 2 * tokens * (sizes.width + sizes.d_inner) * itemsize


ODD = head_sizes(3, 5, 7)
ONE_HEAD = head_sizes(1, 4, 2)
SMALL = head_sizes(2, 32, 32)
FULL = head_sizes(16, 64, 128)
"""Sizes of the full-size network."""


@dataclass(frozen=True)
class ScanInputs:
    """The operator's inputs and attributes."""

    zxbcdt: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    sizes: Sizes
    eps: float = 1e-5

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs, in the operator's order."""
        return self.zxbcdt, self.conv_weight, self.conv_bias, self.dt_bias, self.A, self.D

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes, as keyword arguments."""
        return {"n_heads": self.sizes.n_heads, "d_state": self.sizes.d_state, "eps": self.eps}

    @property
    def arguments(self) -> tuple[Tensor, ScanParameters]:
        """Returns the arguments that every form of the scan takes before the attributes."""
        return self.zxbcdt, ScanParameters(*self.tensors[1:])

    def direction(self, number: int) -> tuple[Tensor, ScanParameters]:
        """Returns the arguments of one direction: 0 is forward, 1 backward."""
        zxbcdt, parameters = self.arguments
        return zxbcdt.split(self.sizes.width, dim=-1)[number], parameters.direction(number)

    def to(self, dtype: torch.dtype) -> ScanInputs:
        """The inputs with the signal as `dtype`, the parameters as float32, or all as float64."""
        parameters = torch.float64 if dtype == torch.float64 else torch.float32
        signal, *rest = self.tensors
        tensors = (signal.to(dtype), *(tensor.to(parameters) for tensor in rest))
        changes: dict[str, Any] = dict(zip(INPUTS, tensors, strict=True))
        return replace(self, **changes)


def scan_inputs(
    N: int,
    L: int,
    sizes: Sizes = ODD,
    *,
    seed: int = 0,
    taps: int = 4,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> ScanInputs:
    """Random inputs with the steps and decays of a freshly initialised network."""
    random = torch.Generator(device).manual_seed(seed)
    made: dict[str, Any] = {"generator": random, "device": device, "dtype": dtype}

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, **made)

    def uniform(low: float, high: float) -> Tensor:
        shape = (2, sizes.n_heads)
        return low + (high - low) * torch.rand(shape, **made)

    return ScanInputs(
        zxbcdt=normal(N, L, 2 * sizes.width),
        conv_weight=normal(2, sizes.d_xbc, taps) / 2,
        conv_bias=normal(2, sizes.d_xbc) / 2,
        dt_bias=torch.log(torch.expm1(torch.exp(uniform(-6.9, -2.3)))),
        A=-uniform(1, 16),
        D=1 + normal(2, sizes.n_heads) / 2,
        sizes=sizes,
    )


def extreme_inputs(kind: str, N: int, L: int, sizes: Sizes = ODD, **made: Any) -> ScanInputs:
    """Inputs of a kind in EXTREMES; `made` is passed to `scan_inputs`."""
    inputs = scan_inputs(N, L, sizes, **{"seed": L} | made)
    zxbcdt = inputs.zxbcdt.clone()
    third = slice(L // 3, L - L // 3)
    match kind:
        case "strong decay":  # log decays sum to about -5000 in 64 steps
            return replace(inputs, dt_bias=inputs.dt_bias + 8, A=inputs.A * 3)
        case "dt near 0":
            return replace(inputs, dt_bias=inputs.dt_bias - 60)
        case "dt large":  # where softplus is the identity
            return replace(inputs, dt_bias=inputs.dt_bias + 60, A=inputs.A / 100)
        case "no decay":  # the state remembers everything
            return replace(inputs, A=inputs.A * 1e-7)
        case "decay stops":  # a long memory behind steps that forget everything
            for dt in zxbcdt.split(sizes.width, dim=-1):
                dt[..., -sizes.n_heads :] = -3
                dt[:, third, -sizes.n_heads :] = 12
            return replace(inputs, zxbcdt=zxbcdt)
        case "silence within":
            zxbcdt[:, third] = 0
            return replace(inputs, zxbcdt=zxbcdt)
    raise AssertionError(kind)
