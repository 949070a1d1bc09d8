"""The one thing every backend is: a function from a mixture's spectrum to a mask; its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import EngineError
from bsmamba2.formats.metadata import Metadata

Spectrum = NDArray[np.float32]
"""Real view, (batch, channels, frames, bins, 2)."""


DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine is to run; raises EngineError for values that no engine takes."""

    device: str = "auto"
    """"cpu", "cuda", or "auto": the GPU where the backend can use one."""
    threads: int | None = None
    """CPU threads; None leaves the choice to the backend."""
    precision: str | None = None
    """Of the matrix products of a `.safetensors` engine: "float32", which None is, or on a GPU
    "float16". Other files have theirs in them."""

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise EngineError(f"Unknown device '{self.device}': choose auto, cpu or cuda.")
        if self.threads is not None and self.threads < 1:
            raise EngineError(f"threads must be at least 1, not {self.threads}.")
        if self.precision not in (None, *PRECISIONS):
            known = " or ".join(PRECISIONS)
            raise EngineError(f"Unknown precision '{self.precision}': choose {known}.")


class Engine(Protocol):
    """Maps the mixture's spectrum to the complex mask of the target stem."""

    metadata: Metadata
    """Configuration and provenance of the weights."""
    device: str
    """Where it runs: "cpu" or "cuda"."""
    precision: str
    """What it runs in: the file's own precision, or that in which a checkpoint was loaded."""
    batch: tuple[int, int, int] | None
    """Chunks at a time that it was built for: fewest, as optimised for, most; None takes any."""

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """The mask, of the spectrum's shape, float32.

        Args:
            spectrum: (batch, channels, frames, bins, 2) float32, C-contiguous.

        Raises:
            EngineError: A wrong shape, or the backend failed.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Backend, device and threads, for reports: nothing is decided by it."""
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
