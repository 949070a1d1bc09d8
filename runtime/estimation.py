"""From chunks of a mixture to the target in them: STFT, engine, mask product, inverse STFT.

What separates a song begins one batch after another and asks for results in the same order:

    first = estimator.begin(batch)     # may only start the work
    second = estimator.begin(batch)
    first.result()                     # waits for it

How much of a batch is done when `begin` returns is the estimator's own affair, and how many it
wants to have begun before the first result is asked for (`in_flight`), too. Any engine that takes
and returns NumPy arrays has an `EngineEstimator`, which does all at once; an engine that keeps its
arrays on a device brings an estimator of its own (`EstimatingEngine`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config import AudioConfig
from bsmamba2.errors import EngineError
from bsmamba2.runtime.engines.base import Engine
from bsmamba2.runtime.stft import Array, istft, stft

_LARGEST = 1e30
"""Of a spectrum; music at full scale stays below 1e4."""

Chunks = NDArray[np.float32]
"""(batch, channels, n), full scale 1."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Chunks that an engine gets at a time."""

    chunks: Chunks
    """Of the mixture; nobody writes to them any more."""
    starts: tuple[int, ...]
    """The song's sample that each begins with; negative before the song."""

    def seconds(self, audio: AudioConfig, index: int = 0, frame: int = 0) -> float:
        """Time in the song of a frame of chunk `index`."""
        return max(0, self.starts[index] + frame * audio.hop) / audio.sample_rate


class Pending(Protocol):
    """A batch that was begun; a `concurrent.futures.Future` is one, too."""

    def result(self) -> Chunks:
        """The target in the batch's chunks, waited for if need be.

        Raises:
            EngineError: The engine failed or its mask is unusable.
        """
        ...


class Estimator(Protocol):
    """Estimates the target in batches of chunks."""

    in_flight: int
    """Batches to begin before the first one's result is asked for, at least 1."""

    def begin(self, batch: Batch) -> Pending:
        """Starts a batch.

        Raises:
            EngineError: As `Pending.result`.
        """
        ...


@runtime_checkable
class EstimatingEngine(Protocol):
    """An engine that does more of the way than the mask."""

    def estimator(self, batch: int) -> Estimator:
        """Its own way through batches of up to `batch` chunks of its model's length."""
        ...


def estimator_of(engine: Engine, batch: int) -> Estimator:
    """The engine's own estimator, or the one for all engines.

    Args:
        engine: Of any backend.
        batch: Chunks that it will get at a time, at most.
    """
    if isinstance(engine, EstimatingEngine):
        return engine.estimator(batch)
    return EngineEstimator(engine)


@dataclass(frozen=True, eq=False)
class Done:
    """A batch whose result is there."""

    samples: Chunks

    def result(self) -> Chunks:
        """The target."""
        return self.samples


class EngineEstimator:
    """Any engine, with the rest of the way on the CPU; all is done when `begin` returns."""

    in_flight = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, batch: Batch) -> Done:
        """The whole way; see `Estimator`."""
        audio = self._engine.artefact.model.audio
        spectrum = stft(batch.chunks, n_fft=audio.n_fft, hop=audio.hop)
        view = spectrum.view(np.float32).reshape(*spectrum.shape, 2)
        mask = np.ascontiguousarray(self._engine(view), dtype=np.float32)
        if mask.shape != view.shape:
            raise EngineError(
                f"The engine returned a mask of shape {mask.shape} for a spectrum of shape "
                f"{view.shape} at {batch.seconds(audio):.2f} s: export the model again."
            )
        estimate = masked(mask, spectrum)
        check_finite(finite_frames(estimate), batch, audio)
        return Done(
            istft(estimate, n_fft=audio.n_fft, hop=audio.hop, length=batch.chunks.shape[-1])
        )


def masked(mask: Array, spectrum: Array) -> Array:
    """The mask product, on whatever kind of array.

    Args:
        mask: (batch, channels, frames, bins, 2) float32, contiguous: real and imaginary parts.
        spectrum: (batch, channels, frames, bins) complex64.

    Returns:
        The target's spectrum, of the mixture's shape.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is an error later
        return mask.view(np.complex64)[..., 0] * spectrum


def finite_frames(estimate: Array) -> Array:
    """Frames that give samples: (batch, frames) of a spectrum (batch, channels, frames, bins).

    NaN and Inf do not, nor do numbers whose inverse STFT may overflow. NumPy hands arrays of other
    kinds over to their own library.
    """
    return (np.abs(estimate.view(np.float32)) <= _LARGEST).all(axis=(1, 3))


def check_finite(finite: NDArray[np.bool_], batch: Batch, audio: AudioConfig) -> None:
    """Raises EngineError with the time in the song unless all of `finite_frames` are true."""
    if not finite.all():
        index, frame = map(int, np.argwhere(~finite)[0])
        raise EngineError(
            f"The engine's mask is NaN or infinite at {batch.seconds(audio, index, frame):.2f} s: "
            "try the float32 engine of this model, and compare both if it works."
        )
