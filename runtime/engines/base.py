"""The one thing every backend is: a function from a mixture's spectrum to a mask."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bsmamba2.artefact import Artefact

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
