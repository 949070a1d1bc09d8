"""BSMamba2 in plain float64 formulas, from the paper; it shares no code with the package.

A network is a dict of tensors by the names of the published checkpoints; a spectrum is complex.
"""

from __future__ import annotations

import math

import numpy as np
import plain_scan
import torch
import torch.nn.functional as F
from torch import Tensor

WIDTHS = [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]  # bins of the 62 bands
EPS = 1e-5

State = dict[str, Tensor]


def mask_of(state: State, spectrum: Tensor, *, layers: int, d_state: int) -> Tensor:
    """The complex mask (batch, channels, bins, frames) of a complex spectrum of that shape."""
    x = band_split(state, spectrum)
    batch, frames, bands, d = x.shape
    for layer in range(layers):
        x = x.permute(0, 2, 1, 3).reshape(batch * bands, frames, d)
        x = block(state, f"layers.{layer}.0", x, d_state)
        x = x.reshape(batch, bands, frames, d).permute(0, 2, 1, 3).reshape(batch * frames, bands, d)
        x = block(state, f"layers.{layer}.1", x, d_state).reshape(batch, frames, bands, d)
    x = band_norm(x, state["final_norm.gamma"])
    return estimate(state, x, channels=spectrum.shape[1])


def band_norm(x: Tensor, gamma: Tensor) -> Tensor:
    """x / max(||x||, 1e-12) * sqrt(d) * gamma."""
    norm = x.square().sum(-1, keepdim=True).sqrt()
    return x / torch.maximum(norm, torch.tensor(1e-12)) * math.sqrt(x.shape[-1]) * gamma


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def band_split(state: State, spectrum: Tensor) -> Tensor:
    """(batch, frames, bands, d_model)."""
    batch, channels, _, frames = spectrum.shape
    outputs, start = [], 0
    for k, width in enumerate(WIDTHS):
        features = []  # [L.re, L.im, R.re, R.im] of the first bin, of the second ...
        for bin in range(start, start + width):
            for channel in range(channels):
                features += [spectrum[:, channel, bin].real, spectrum[:, channel, bin].imag]
        start += width
        x = torch.stack(features, dim=-1)
        assert x.shape == (batch, frames, 4 * width)
        name = f"band_split.to_features.{k}"
        x = band_norm(x, state[f"{name}.0.gamma"])
        outputs.append(x @ state[f"{name}.1.weight"].T + state[f"{name}.1.bias"])
    assert start == spectrum.shape[2]
    return torch.stack(outputs, dim=2)


def block(state: State, name: str, x: Tensor, d_state: int) -> Tensor:
    """P [u_f, u_b] + b + x of sequences (N, L, d_model)."""
    forward = residual(state, f"{name}.forward_blocks.0", x, d_state)
    backward = residual(state, f"{name}.backward_blocks.0", torch.flip(x, [1]), d_state)
    both = torch.cat([forward, torch.flip(backward, [1])], dim=-1)
    merged = F.conv_transpose1d(
        both.transpose(1, 2), state[f"{name}.linear.weight"], state[f"{name}.linear.bias"]
    )
    return merged.transpose(1, 2) + x


def residual(state: State, name: str, x: Tensor, d_state: int) -> Tensor:
    """x + M(RMSNorm(x))."""
    mixer = {
        key.removeprefix(f"{name}.mixer."): value
        for key, value in state.items()
        if key.startswith(f"{name}.mixer.")
    }
    u = rms_norm(x, state[f"{name}.norm.weight"])
    arrays = [
        u @ mixer["in_proj.weight"].T,
        mixer["conv1d.weight"][:, 0],
        mixer["conv1d.bias"],
        mixer["dt_bias"],
        -torch.exp(mixer["A_log"]),
        mixer["D"],
    ]
    y = plain_scan.forward_direction(*(a.numpy() for a in arrays), d_state=d_state, eps=EPS)
    return x + (torch.from_numpy(np.array(y)) * mixer["norm.weight"]) @ mixer["out_proj.weight"].T


def estimate(state: State, x: Tensor, channels: int) -> Tensor:
    """The mask from (batch, frames, bands, d_model)."""
    bins = []
    for k, width in enumerate(WIDTHS):
        name = f"mask_estimators.0.to_freqs.{k}.0"
        hidden = torch.tanh(x[:, :, k] @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"])
        out = hidden @ state[f"{name}.2.weight"].T + state[f"{name}.2.bias"]
        values = out[..., : 4 * width] / (1 + torch.exp(-out[..., 4 * width :]))
        values = values.reshape(*values.shape[:2], width, channels, 2)
        bins.append(torch.complex(values[..., 0], values[..., 1]))
    return torch.cat(bins, dim=2).permute(0, 3, 2, 1)
