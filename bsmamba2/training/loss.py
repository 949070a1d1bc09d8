"""The loss: waveform and several complex spectra of the error (the authors' code).

    10 mean|y - s| + sum over windows of mean|STFT(y) - STFT(s)|

The transform is linear, so that one of y - s does for both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bsmamba2.config import LossConfig


class LossTerms(NamedTuple):
    """The loss and its two parts, scalars."""

    total: Tensor
    """waveform_weight * waveform + spectral."""
    waveform: Tensor
    """mean |y - s|."""
    spectral: Tensor
    """Sum over windows of mean |STFT(y - s)|."""


def separation_loss(estimate: Tensor, target: Tensor, loss: LossConfig) -> LossTerms:
    """The loss of estimates, always in float32 or better.

    Args:
        estimate: y, (batch, channels, n).
        target: s, of the same shape.
        loss: Weights and windows.

    Returns:
        Scalars; the total has a gradient in `estimate`, of first order only.
    """
    with torch.autocast(estimate.device.type, enabled=False):
        least = torch.promote_types(torch.float32, estimate.dtype)
        difference = estimate.to(least) - target.to(least)
        waveform = difference.abs().mean()
        spectral: Tensor = _SpectralError.apply(difference.flatten(0, -2), loss)
        return LossTerms(loss.waveform_weight * waveform + spectral, waveform, spectral)


class _SpectralError(torch.autograd.Function):
    """Sum over windows of mean |STFT(difference)|.

    The gradient is made with the value, window by window: spectra at a hop of 147 samples are 28
    times as large as the signal, and autograd would keep those of all windows until the backward
    pass.
    """

    @staticmethod
    def forward(ctx: Any, difference_NL: Tensor, loss: LossConfig) -> Tensor:  # type: ignore[override]
        total = difference_NL.new_zeros(())
        wants_gradient = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(difference_NL) if wants_gradient else None
        for window in loss.stft_windows:
            with torch.set_grad_enabled(wants_gradient):
                leaf = difference_NL.detach().requires_grad_(wants_gradient)
                value = _mean_magnitude(leaf, window, loss)
            if gradient is not None:
                gradient += torch.autograd.grad(value, leaf)[0]
            total += value.detach()
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.gradient, None


def _mean_magnitude(signal_NL: Tensor, window: int, loss: LossConfig) -> Tensor:
    spectrum = torch.stft(
        signal_NL,
        max(window, loss.stft_min_n_fft),
        loss.stft_hop,
        win_length=window,
        window=torch.hann_window(window, device=signal_NL.device, dtype=signal_NL.dtype),
        return_complex=True,
    )
    return spectrum.abs().mean()
