"""The scan of one direction in plain NumPy loops, written from the paper's formulas.

It shares no code with the package: the package's own reference is compared with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def causal_conv(x: Array, weight: Array, bias: Array) -> Array:
    """y_t = bias + sum over k of weight_k x_(t - taps + 1 + k); before the start x is 0.

    (N, L, channels), weight (channels, taps).
    """
    taps = weight.shape[1]
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        y[:, t] = bias
        for k in range(taps):
            past = t - taps + 1 + k
            if past >= 0:
                y[:, t] += weight[:, k] * x[:, past]
    return y


def recurrence(x: Array, dt: Array, A: Array, B: Array, C: Array, D: Array) -> Array:
    """h_t = exp(A dt_t) h_(t-1) + dt_t x_t B_t^T;  y_t = h_t C_t + D x_t.

    x (N, L, H, P), dt (N, L, H), A and D (H), B and C (N, L, S).
    """
    y = np.empty_like(x)
    h = np.zeros((*x[:, 0].shape, B.shape[-1]))
    for t in range(x.shape[1]):
        decay = np.exp(A * dt[:, t])[:, :, None, None]
        h = decay * h + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, None, None, :]
        y[:, t] = (h * C[:, t, None, None, :]).sum(-1) + D[:, None] * x[:, t]
    return y


def gated_norm(y: Array, z: Array, eps: float) -> Array:
    """RMSNorm(y * SiLU(z)) without weight."""
    gated = y * silu(z)
    return gated / np.sqrt((gated**2).mean(-1, keepdims=True) + eps)


def forward_direction(
    zxbcdt: Array,
    conv_weight: Array,
    conv_bias: Array,
    dt_bias: Array,
    A: Array,
    D: Array,
    *,
    d_state: int,
    eps: float,
) -> Array:
    """Scans (N, L, [z, x, B, C, dt]) in order of time; returns (N, L, d_inner)."""
    heads, d_inner = len(A), len(conv_weight) - 2 * d_state
    z, xbc, dt = np.split(zxbcdt, [d_inner, 2 * d_inner + 2 * d_state], axis=-1)
    xbc = silu(causal_conv(xbc, conv_weight, conv_bias))
    x, B, C = np.split(xbc, [d_inner, d_inner + d_state], axis=-1)
    x = x.reshape(*x.shape[:2], heads, -1)
    y = recurrence(x, softplus(dt + dt_bias), A, B, C, D)
    return gated_norm(y.reshape(z.shape), z, eps)
