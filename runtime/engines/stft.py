"""Short-time Fourier transform and its inverse, equal to `torch.stft` and `torch.istft`.

Centred frames with reflect padding, periodic Hann window, one-sided, not normalised. NumPy arrays
are transformed by scipy.fft (which keeps float32 and takes a third of numpy.fft's time), CuPy
arrays by cupyx.scipy.fft on their own device.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

Array = Any
"""A NumPy or CuPy array; results are of the same kind as the arguments."""


def stft(samples: Array, *, n_fft: int, hop: int) -> Array:
    """Computes the spectrum of real samples.

    Args:
        samples: (..., n) float32 or float64, n > n_fft / 2.
        n_fft: Window length in samples, even.
        hop: Samples between two frames.

    Returns:
        (..., 1 + n // hop frames, n_fft / 2 + 1 bins), complex64 or complex128.

    Raises:
        ValueError: Too few samples for the reflection at the ends, or not a float array.
    """
    pad, n = n_fft // 2, samples.shape[-1]
    if samples.dtype.kind != "f":
        raise ValueError(f"stft needs float samples, not {samples.dtype}.")
    if n <= pad:
        raise ValueError(f"stft needs more than {pad} samples (half a window), not {n}.")
    xp, fft = _modules(samples)
    padded = xp.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(pad, pad)], mode="reflect")
    frames = xp.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=-1)[..., ::hop, :]
    return fft.rfft(frames * xp.asarray(_window(n_fft, samples.dtype.name)), axis=-1)


def istft(spectrum: Array, *, n_fft: int, hop: int, length: int) -> Array:
    """Computes the samples whose spectrum is nearest to the given one, by least squares.

    Args:
        spectrum: (..., frames, n_fft / 2 + 1 bins), complex64 or complex128.
        n_fft: Window length in samples, even.
        hop: Samples between two frames, at most n_fft / 2.
        length: Samples to return; frames must be 1 + length // hop, as `stft` returns them.

    Returns:
        (..., length), float32 or float64.

    Raises:
        ValueError: The spectrum's shape fits neither n_fft nor length, or it is not complex.
    """
    frames, bins = spectrum.shape[-2:]
    if spectrum.dtype.kind != "c":
        raise ValueError(f"istft needs a complex spectrum, not {spectrum.dtype}.")
    if bins != n_fft // 2 + 1 or frames != 1 + length // hop:
        raise ValueError(
            f"istft to {length} samples needs {1 + length // hop} frames of {n_fft // 2 + 1} "
            f"bins, not {frames} of {bins}."
        )
    xp, fft = _modules(spectrum)
    pieces = fft.irfft(spectrum, n=n_fft, axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):  # callers check for values that overflow
        pieces *= xp.asarray(_window(n_fft, pieces.dtype.name))
    padded = _overlap_add(pieces, hop, xp)[..., n_fft // 2 : n_fft // 2 + length]
    padded *= xp.asarray(_inverse_envelope(n_fft, hop, length, pieces.dtype.name))
    return padded


def _overlap_add(pieces: Array, hop: int, xp: Any) -> Array:
    """Overlap-adds (..., frames, n_fft): (..., (frames + ceil(n_fft / hop) - 1) * hop).

    Sample j * hop + i of the sum is sample i of row j below, and row j sums part p of frame j - p
    over all p. So one shifted addition per part replaces a loop over frames; the last part is
    shorter if hop does not divide the window.
    """
    *batch, frames, n_fft = pieces.shape
    parts = -(-n_fft // hop)
    rows = xp.zeros((*batch, frames + parts - 1, hop), pieces.dtype)
    for part in range(parts):
        width = min(hop, n_fft - part * hop)
        rows[..., part : part + frames, :width] += pieces[..., part * hop : part * hop + width]
    return rows.reshape(*batch, -1)


@functools.lru_cache(maxsize=8)
def _window(n_fft: int, dtype: str) -> Any:
    """Periodic Hann window, (n_fft,): sin^2(pi i / n_fft)."""
    window = np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
    return _frozen(window.astype(dtype))


@functools.lru_cache(maxsize=8)
def _inverse_envelope(n_fft: int, hop: int, length: int, dtype: str) -> Any:
    """1 / sum of the shifted squared windows, for the samples that istft returns: (length,)."""
    squared = np.broadcast_to(_window(n_fft, "float64") ** 2, (1 + length // hop, n_fft))
    envelope = _overlap_add(squared, hop, np)[n_fft // 2 : n_fft // 2 + length]
    return _frozen((1 / envelope).astype(dtype))


def _frozen(array: Any) -> Any:
    array.flags.writeable = False  # all callers share the cached array
    return array


def _modules(array: Array) -> tuple[Any, Any]:
    """Returns the array module and the FFT module for an array: NumPy's and SciPy's, or CuPy's."""
    if type(array).__module__.partition(".")[0] == "cupy":
        return importlib.import_module("cupy"), importlib.import_module("cupyx.scipy.fft")
    return np, importlib.import_module("scipy.fft")
