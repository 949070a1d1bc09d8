"""The one thing every backend is: a function from a mixture's spectrum to a mask."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bsmamba2.artefact import Artefact
from bsmamba2.config import AudioConfig
from bsmamba2.errors import EngineError

Spectrum = NDArray[np.float32]
"""Real view, (batch, channels, frames, bins, 2)."""


class Engine(Protocol):
    """Maps the mixture's spectrum to the complex mask of the target stem."""

    artefact: Artefact
    """Configuration and provenance of the weights."""

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """The mask, of the spectrum's shape, float32.

        Args:
            spectrum: (batch, channels, frames, bins, 2) float32, C-contiguous.

        Raises:
            EngineError: A wrong shape, or the backend failed.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Backend, device and threads, for reports."""
        ...


def check_spectrum(spectrum: Spectrum, audio: AudioConfig) -> None:
    """Raises EngineError unless the array is a spectrum that an engine of `audio` takes."""
    expected = (audio.channels, audio.bins, 2)
    if spectrum.ndim != 5 or (spectrum.shape[1], *spectrum.shape[3:]) != expected:
        raise EngineError(
            f"A spectrum must be (batch, {audio.channels}, frames, {audio.bins}, 2), "
            f"not {spectrum.shape}."
        )
    if spectrum.dtype != np.float32 or 0 in spectrum.shape:
        raise EngineError(
            f"A spectrum must be float32 and not empty, not {spectrum.dtype} {spectrum.shape}."
        )
