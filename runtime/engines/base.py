"""The interface of all engines, which map a mixture's spectrum to a mask, and their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import EngineError
from bsmamba2.formats.metadata import Metadata

Spectrum = NDArray[np.float32]
"""(batch, channels, frames, bins, 2): real and imaginary parts on the last axis."""


DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options for loading an engine; raises EngineError for values that no engine accepts.

    Attributes:
        device: "cpu", "cuda", or "auto": the GPU if the backend can use one, otherwise the CPU.
        threads: Number of CPU threads, at most the cores that this process may use; None takes as
            many as there are of these.
        precision: Precision of the matrix products of a `.safetensors` engine: "float32" (also
            None), or "float16" on a GPU. The precision of other files is fixed.
    """

    device: str = "auto"
    threads: int | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise EngineError(f"Unknown device '{self.device}': choose auto, cpu or cuda.")
        if self.threads is not None and self.threads < 1:
            raise EngineError(f"threads must be at least 1, not {self.threads}.")
        if self.precision not in (None, *PRECISIONS):
            known = " or ".join(PRECISIONS)
            raise EngineError(f"Unknown precision '{self.precision}': choose {known}.")


class Engine(Protocol):
    """Maps the mixture's spectrum to the complex mask of the target stem.

    Any object with these attributes and methods is an engine.

    Attributes:
        metadata: Configuration and provenance of the weights.
        device: The device it runs on: "cpu" or "cuda".
        precision: The precision it computes in: "float32", "float16" or "int8".
        batch: Smallest, optimal and largest number of chunks per call; None if any number will do.
    """

    metadata: Metadata
    device: str
    precision: str
    batch: tuple[int, int, int] | None

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """Computes the mask, float32 of the spectrum's shape.

        Args:
            spectrum: (batch, channels, frames, bins, 2) float32, C-contiguous; the last axis holds
                real and imaginary parts.

        Raises:
            EngineError: The spectrum has a wrong shape, or the backend failed.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Returns backend, device, threads and so on, for reports only."""
        ...


class Unpicklable:
    """What holds threads, or a backend's handles, which no other process can use."""

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled or copied."""
        name = type(self).__name__
        raise TypeError(f"{name} objects cannot be pickled or copied: make one in each process.")


def check_spectrum(spectrum: Spectrum, audio: AudioConfig) -> None:
    """Raises EngineError unless the array is a spectrum for models with this configuration."""
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
