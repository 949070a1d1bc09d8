"""The loss: waveform and multi-resolution complex spectra of the error (from the authors' code).

    10 mean|y - s| + sum over windows of mean|STFT(y) - STFT(s)|

The transform is linear, so a single transform of y - s suffices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bsmamba2.config.training import LossConfig

_BLOCK_BINS = {"cpu": 1 << 18}
"""Complex bins processed at a time, by device type: 2 MB fit into a CPU's cache."""
_BLOCK_BINS_ELSEWHERE = 1 << 26


class LossTerms(NamedTuple):
    """The loss and its two parts, scalars."""

    total: Tensor
    """waveform_weight * waveform + spectral."""
    waveform: Tensor
    """mean |y - s|."""
    spectral: Tensor
    """Sum over windows of mean |STFT(y - s)|."""


def separation_loss(estimate: Tensor, target: Tensor, loss: LossConfig) -> LossTerms:
    """Computes the loss of estimates, always in float32 or better.

    Args:
        estimate: y, (batch, channels, n).
        target: s, of the same shape.
        loss: Weights and windows.

    Returns:
        Scalars; the total is differentiable once with respect to `estimate`.
    """
    with torch.autocast(estimate.device.type, enabled=False):
        least = torch.promote_types(torch.float32, estimate.dtype)
        difference = estimate.to(least) - target.to(least)
        waveform = difference.abs().mean()
        spectral: Tensor = _SpectralError.apply(  # type: ignore[no-untyped-call]
            difference.flatten(0, -2), loss
        )
        return LossTerms(loss.waveform_weight * waveform + spectral, waveform, spectral)


class _SpectralError(torch.autograd.Function):
    """Sum over windows of mean |STFT(difference)|; the forward pass also computes the gradient.

    At a hop of 147 samples the spectra are 28 times as large as the signal, and autograd would
    keep those of all windows until the backward pass. Here each block of frames is transformed and
    its magnitudes and gradient are accumulated before the next one, which takes a sixth of the
    time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, difference_NL: Tensor, loss: LossConfig) -> Tensor:
        gradient = torch.zeros_like(difference_NL) if ctx.needs_input_grad[0] else None
        total = difference_NL.new_zeros((), dtype=torch.float64)
        for window in loss.stft_windows:
            n_fft = max(window, loss.stft_min_n_fft)
            total += _mean_magnitude(difference_NL, window, n_fft, loss.stft_hop, gradient)
        ctx.gradient = gradient
        return total.to(difference_NL.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.gradient, None


def _mean_magnitude(
    signal_NL: Tensor, window: int, n_fft: int, hop: int, gradient_NL: Tensor | None
) -> Tensor:
    """Returns mean |STFT|, float64, and adds its gradient to `gradient_NL`.

    Frames are those of `torch.stft`: centred, reflect padding, periodic Hann. A window shorter
    than n_fft is at the start of its frame, not in the middle, which affects phases only.
    """
    n_signals, length = signal_NL.shape
    n_frames, bins = 1 + length // hop, n_fft // 2 + 1
    hann = torch.hann_window(window, device=signal_NL.device, dtype=signal_NL.dtype)
    pad = window // 2
    frames_NTW = F.pad(signal_NL[None], (pad, window - pad), mode="reflect")[0].unfold(
        1, window, hop
    )
    parts = -(-window // hop)
    rows = signal_NL.new_zeros(n_signals, n_frames + parts - 1, hop)
    total = signal_NL.new_zeros((), dtype=torch.float64)
    count = n_signals * n_frames * bins
    most = _BLOCK_BINS.get(signal_NL.device.type, _BLOCK_BINS_ELSEWHERE)
    step = max(1, most // (n_signals * bins))
    for start in range(0, n_frames, step):
        stop = min(start + step, n_frames)
        spectrum = torch.fft.rfft(frames_NTW[:, start:stop] * hann, n=n_fft)
        magnitude = spectrum.abs()
        total += magnitude.sum(dtype=torch.float64)
        if gradient_NL is not None:
            pieces = _frame_gradient(spectrum, magnitude, n_fft)[..., :window] * (hann / count)
            _overlap_add(pieces, rows[:, start:])
    if gradient_NL is not None:
        _add_unpadded(rows.flatten(1), gradient_NL, pad, window - pad)
    return total / count


def _frame_gradient(spectrum: Tensor, magnitude: Tensor, n_fft: int) -> Tensor:
    """Gradient of sum |rfft(frame)| with respect to the frame: sum of Re(conj(S / |S|) e^-iwt).

    irfft counts all bins but the first and the last twice. Bins where S is 0 contribute 0.
    """
    scale = 0.5 / magnitude.clamp(min=torch.finfo(magnitude.dtype).tiny)
    scale[..., 0] *= 2
    scale[..., -1] *= 2
    direction = torch.view_as_complex(torch.view_as_real(spectrum) * scale[..., None])
    return torch.fft.irfft(direction, n=n_fft, norm="forward")


def _overlap_add(pieces_NTW: Tensor, rows: Tensor) -> None:
    """Overlap-adds frames, a hop apart, to rows (N, at least frames, hop)."""
    n_frames, window = pieces_NTW.shape[1:]
    hop = rows.shape[-1]
    for part in range(-(-window // hop)):
        piece = pieces_NTW[..., part * hop : (part + 1) * hop]
        rows[:, part : part + n_frames, : piece.shape[-1]] += piece


def _add_unpadded(padded: Tensor, signal: Tensor, before: int, after: int) -> None:
    """Adds the gradient of a reflect-padded signal to that of the signal."""
    length = signal.shape[1]
    padded = F.pad(padded, (0, max(0, before + length + after - padded.shape[1])))
    signal += padded[:, before : before + length]
    signal[:, 1 : before + 1] += padded[:, :before].flip(1)
    signal[:, length - 1 - after : -1] += padded[:, before + length :][:, :after].flip(1)
