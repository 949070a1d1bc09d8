"""The checks that an exported file passes before it gets its name.

Those of a lower precision are in `export.precision`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import ExportError
from bsmamba2.evaluation.parity import LIMITS, percentile_999, relative_rms, spectrum_of
from bsmamba2.evaluation.reference_excerpt import fixed_mixture
from bsmamba2.formats.metadata import MaskParity

PARITY_FRAMES = (1, 2, 63, 801)  # one step, a pair, one chunk of the scan, a chunk of audio

Mask = NDArray[np.float32]
MaskFunction = Callable[[NDArray[np.float32]], Mask]


def fixed_spectrum(audio: AudioConfig, frames: int) -> NDArray[np.float32]:
    """A spectrum that is the same everywhere: (1, channels, frames, bins, 2) float32.

    Of `fixed_mixture`: harmonics, noise and silence at musical levels.
    """
    mixture = fixed_mixture(audio, max(audio.n_fft + 1, (frames - 1) * audio.hop))
    return np.ascontiguousarray(spectrum_of(mixture[None], audio)[:, :, :frames])


def measure_parity(
    reference: MaskFunction,
    candidate: MaskFunction,
    audio: AudioConfig,
    frames: Sequence[int] | None = None,
) -> Iterator[MaskParity]:
    """Compares two engines on the fixed spectrum, one figure a number of frames.

    `frames` are PARITY_FRAMES unless given.
    """
    for count in PARITY_FRAMES if frames is None else frames:
        spectrum = fixed_spectrum(audio, count)
        expected = reference(spectrum)
        mask = candidate(spectrum)
        yield MaskParity(
            frames=count,
            p999=percentile_999(mask, expected),
            relative_rms=relative_rms(mask, expected),
        )


def check_parity(figures: Sequence[MaskParity], precision: str = "float32") -> None:
    """Raises ExportError if a figure is over the limits of a precision, or NaN."""
    limits = LIMITS[precision]
    failed = [
        f"{figure.frames} frames: {figure}"
        for figure in figures
        if not (figure.p999 <= limits.p999 and figure.relative_rms <= limits.relative_rms)
    ]
    if failed:
        raise ExportError(
            f"The exported mask differs from PyTorch's by more than p99.9 {limits.p999:.0e} or "
            f"relative RMS {limits.relative_rms:.0e} ({'; '.join(failed)}): nothing was written."
        )
