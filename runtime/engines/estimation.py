"""From chunks of a mixture to the target in them: STFT, engine, mask product, inverse STFT.

`bsmamba2.models.estimation` is the same for networks, with gradients.

What separates a song begins one batch after another and asks for results in the same order:

    first = estimator.begin(batch)     # may only start the work
    second = estimator.begin(batch)
    first.result()                     # waits for it

How much of a batch is done when `begin` returns is the estimator's own affair, and how many it
wants to have begun before the first result is asked for (`in_flight`), too. Any engine that takes
and returns NumPy arrays has an `EngineEstimator`, which calls it on a thread of its own; an engine
that keeps its arrays on a device brings an estimator (`EstimatingEngine`). Both serve songs in
several threads at a time, and never call the engine from two.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import EngineError
from bsmamba2.runtime.engines.base import Engine, Spectrum
from bsmamba2.runtime.engines.stage_times import StageTimes
from bsmamba2.runtime.engines.stft import Array, istft, stft
from bsmamba2.system.lanes import Lane, Pending, Task

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
    times: StageTimes = field(default_factory=StageTimes)
    """Of the song."""

    def seconds(self, audio: AudioConfig, index: int = 0, frame: int = 0) -> float:
        """Time in the song of a frame of chunk `index`."""
        return max(0, self.starts[index] + frame * audio.hop) / audio.sample_rate


class Estimator(Protocol):
    """Estimates the target in batches of chunks."""

    in_flight: int
    """Batches to begin before the first one's result is asked for, at least 1."""

    def begin(self, batch: Batch) -> Pending[Chunks]:
        """Starts a batch, whose result is the target in its chunks.

        Raises:
            EngineError: The engine failed or its mask is unusable; of the result as well.
        """
        ...


@runtime_checkable
class EstimatingEngine(Protocol):
    """An engine that does more of the way than the mask."""

    def estimator(self, batch: int) -> Estimator:
        """Its own way through batches of up to `batch` chunks of its model's length.

        It is called from several threads, but never from two at once.
        """
        ...


def estimator_of(engine: Engine, batch: int) -> EngineEstimator | SharedEstimator:
    """The engine's own estimator, or the one for all engines.

    Args:
        engine: Of any backend.
        batch: Chunks that it will get at a time, at most.
    """
    if isinstance(engine, EstimatingEngine):
        return SharedEstimator(engine.estimator(batch))
    return EngineEstimator(engine)


class EngineEstimator:
    """Any engine, with the rest of the way on the CPU.

    The STFT is done when `begin` returns. One thread calls the engine, batch after batch; others
    finish what it is done with.
    """

    in_flight = 3
    """One for the inverse STFT, one in the engine, and the next ready for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._audio = engine.metadata.model.audio
        self._masks = Lane("bsm-engine")
        self._targets = Lane("bsm-istft", threads=2)

    def begin(self, batch: Batch) -> Pending[Chunks]:
        """See `Estimator`."""
        with batch.times.measure("stft"):
            spectrum = stft(batch.chunks, n_fft=self._audio.n_fft, hop=self._audio.hop)
        mask = self._masks.submit(functools.partial(self._mask, batch, spectrum))
        target = self._targets.submit(functools.partial(self._target, batch, spectrum, mask))
        return _MaskedBatch(mask, target)

    def close(self) -> None:
        """Ends all that was begun, from any thread: results are CancelledError from now on."""
        self._masks.close()
        self._targets.close()

    def _mask(self, batch: Batch, spectrum: NDArray[np.complex64]) -> Spectrum:
        """Calls the engine."""
        view = real_view(spectrum)
        with batch.times.measure("engine"):
            mask = np.ascontiguousarray(self._engine(view), dtype=np.float32)
        if mask.shape != view.shape:
            raise EngineError(
                f"The engine returned a mask of shape {mask.shape} for a spectrum of shape "
                f"{view.shape} at {batch.seconds(self._audio):.2f} s: export the model again."
            )
        return mask

    def _target(
        self, batch: Batch, spectrum: NDArray[np.complex64], pending: Task[Spectrum]
    ) -> Chunks:
        """Waits for the mask, and goes the rest of the way."""
        mask, audio = pending.result(), self._audio
        with batch.times.measure("istft"):
            estimate = masked(mask, spectrum)
            check_finite(finite_frames(estimate), batch, audio)
            length = batch.chunks.shape[-1]
            samples: Chunks = istft(estimate, n_fft=audio.n_fft, hop=audio.hop, length=length)
        return samples


@dataclass(frozen=True, eq=False)
class _MaskedBatch:
    """A batch of an `EngineEstimator`."""

    mask: Task[Spectrum]
    target: Task[Chunks]

    def result(self) -> Chunks:
        """The target; see `Pending`."""
        return self.target.result()

    def cancel(self) -> bool:
        """As `Task.cancel`; who waits for a mask that will not come is not waited for."""
        return self.mask.cancel() and self.target.cancel()


class SharedEstimator:
    """An engine's own estimator, for songs in several threads.

    The engine's time is here the time that the caller waits for it: what a device does while the
    host is busy elsewhere is not seen.
    """

    def __init__(self, estimator: Estimator) -> None:
        self.in_flight = estimator.in_flight
        self._estimator = estimator
        self._turn = threading.Lock()
        self._closed = False

    def begin(self, batch: Batch) -> Pending[Chunks]:
        """See `Estimator`."""
        with self._turn, batch.times.measure("engine"):
            if self._closed:
                raise CancelledError
            return _SharedBatch(self._estimator.begin(batch), batch.times, self._turn)

    def close(self) -> None:
        """Lets no batch begin any more."""
        self._closed = True


@dataclass(frozen=True, eq=False)
class _SharedBatch:
    """A batch of a `SharedEstimator`."""

    pending: Pending[Chunks]
    times: StageTimes
    turn: threading.Lock

    def result(self) -> Chunks:
        """The target; see `Pending`."""
        with self.turn, self.times.measure("engine"):
            return self.pending.result()

    def cancel(self) -> object:
        """See `Pending`."""
        return self.pending.cancel()


def real_view(spectrum: Array) -> Array:
    """What engines take of a spectrum: real and imaginary parts along a last axis of 2."""
    return spectrum.view(spectrum.real.dtype).reshape(*spectrum.shape, 2)


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
