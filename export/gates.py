"""The checks that an exported file passes before it gets its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bsmamba2.artefact import MaskParity
from bsmamba2.config import AudioConfig
from bsmamba2.errors import ExportError
from bsmamba2.runtime.stft import stft

PARITY_FRAMES = (1, 2, 63, 801)  # one step, a pair, one chunk of the scan, a chunk of audio
MAX_P999 = 1e-4
MAX_RELATIVE_RMS = 1e-5

Mask = NDArray[np.float32]
MaskFunction = Callable[[NDArray[np.float32]], Mask]


def fixed_spectrum(audio: AudioConfig, frames: int) -> NDArray[np.float32]:
    """A spectrum that is the same everywhere: (1, channels, frames, bins, 2) float32.

    Of gliding harmonics in noise with a bar of digital silence, at musical levels; a network that
    depends on its input shows it there, on white noise less.
    """
    samples = max(audio.n_fft + 1, (frames - 1) * audio.hop)
    time_s = np.arange(samples) / audio.sample_rate
    random = np.random.default_rng(0)
    channels = []
    for channel in range(audio.channels):
        pitch = 220.0 * 2 ** (0.25 * np.sin(2 * np.pi * (0.3 + 0.1 * channel) * time_s))
        phase = 2 * np.pi * np.cumsum(pitch) / audio.sample_rate
        voice = sum(np.sin(k * phase) / k for k in range(1, 24))
        beat = np.exp(-8 * (time_s * (2 + channel) % 1))
        noise = random.standard_normal(samples) * beat
        mixture = 0.1 * voice + 0.05 * noise
        mixture[(time_s > 3) & (time_s < 4)] = 0
        channels.append(mixture)
    spectrum = stft(np.array([channels], np.float32), n_fft=audio.n_fft, hop=audio.hop)
    spectrum = np.ascontiguousarray(spectrum[:, :, :frames])
    return spectrum.view(np.float32).reshape(*spectrum.shape, 2)


def measure_parity(
    reference: MaskFunction, candidate: MaskFunction, audio: AudioConfig
) -> Iterator[MaskParity]:
    """Compares two engines on the fixed spectrum, one figure a number of frames."""
    for frames in PARITY_FRAMES:
        spectrum = fixed_spectrum(audio, frames)
        expected = reference(spectrum).astype(np.float64)
        difference = np.abs(candidate(spectrum) - expected)
        yield MaskParity(
            frames=frames,
            p999=float(np.quantile(difference, 0.999)),
            relative_rms=float(
                np.sqrt(np.mean(difference**2)) / max(np.sqrt(np.mean(expected**2)), 1e-30)
            ),
        )


def check_parity(figures: Sequence[MaskParity]) -> None:
    """Raises ExportError if a figure is over its limit, or NaN."""
    failed = [
        f"{figure.frames} frames: {figure}"
        for figure in figures
        if not (figure.p999 <= MAX_P999 and figure.relative_rms <= MAX_RELATIVE_RMS)
    ]
    if failed:
        raise ExportError(
            f"The exported mask differs from PyTorch's by more than p99.9 {MAX_P999:.0e} or "
            f"relative RMS {MAX_RELATIVE_RMS:.0e} ({'; '.join(failed)}): nothing was written."
        )
