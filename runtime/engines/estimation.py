"""Estimates the target stem in chunks of a mixture: STFT, engine, mask product, inverse STFT.

`bsmamba2.models.estimation` does the same for networks, with gradients.

A separator begins one batch after another and collects the results in the same order:

    first = estimator.begin(batch)     # may only start the work
    second = estimator.begin(batch)
    first.result()                     # waits for it

Each estimator decides how much of a batch is done when `begin` returns, and how many batches
should be in flight before the first result is waited for. Engines that take and return NumPy
arrays are wrapped in an `EngineEstimator`, which calls them on a thread of its own; an engine that
keeps its arrays on a device provides its own estimator (`EstimatingEngine`). Several threads may
use an estimator, each for its own song; the engine is never called from two threads at once.
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
"""Largest allowed value in a spectrum; music at full scale stays below 1e4."""

Chunks = NDArray[np.float32]
"""(batch, channels, n), full scale 1."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Chunks that the engine processes in one call."""

    chunks: Chunks
    """Chunks of the mixture, which must not be modified any more."""
    starts: tuple[int, ...]
    """Position of each chunk in the song, in samples; may be negative."""
    times: StageTimes = field(default_factory=StageTimes)
    """Stopwatches of the song."""

    def seconds(self, audio: AudioConfig, index: int = 0, frame: int = 0) -> float:
        """Returns the position in the song of a frame of chunk `index`, in seconds."""
        return max(0, self.starts[index] + frame * audio.hop) / audio.sample_rate


class Estimator(Protocol):
    """Estimates the target in batches of chunks."""

    in_flight: int
    """Number of batches to begin before waiting for the first result, at least 1."""

    def begin(self, batch: Batch) -> Pending[Chunks]:
        """Starts a batch; its result will be the target stem in these chunks.

        Raises:
            EngineError: The engine failed or its mask is unusable; `result` may raise it, too.
        """
        ...


@runtime_checkable
class EstimatingEngine(Protocol):
    """An engine that computes the target itself, not only the mask."""

    def estimator(self, batch: int) -> Estimator:
        """The engine's own estimator for batches of up to `batch` chunks of the model's length.

        The estimator is used from several threads, but never from two at once.
        """
        ...


def estimator_of(engine: Engine, batch: int) -> EngineEstimator | SharedEstimator:
    """Returns the engine's own estimator if it has one, otherwise an `EngineEstimator`.

    Args:
        engine: An engine of any backend.
        batch: The largest number of chunks per batch.
    """
    if isinstance(engine, EstimatingEngine):
        return SharedEstimator(engine.estimator(batch))
    return EngineEstimator(engine)


class EngineEstimator:
    """Estimates with any engine; transforms and mask product run on the CPU.

    The STFT is done when `begin` returns. One thread calls the engine, batch after batch; two
    others turn its masks into samples.
    """

    in_flight = 3
    """One batch in the inverse STFT, one in the engine, and the next one ready for it."""

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
        try:
            target = self._targets.submit(functools.partial(self._target, batch, spectrum, mask))
        except BaseException:
            mask.cancel()  # nobody else knows of it
            raise
        return _MaskedBatch(mask, target)

    def close(self) -> None:
        """Cancels all batches, from any thread: their results raise CancelledError from now on."""
        self._masks.close()
        self._targets.close()

    def _mask(self, batch: Batch, spectrum: NDArray[np.complex64]) -> Spectrum:
        """Returns the engine's mask."""
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
        """Waits for the mask; returns the target's samples."""
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
        """See `Task.cancel`; `_target` is not waited for if its mask will never come."""
        return self.mask.cancel() and self.target.cancel()


class SharedEstimator:
    """Lets several threads, each with its own song, share an engine's own estimator.

    The stage "engine" measures how long the caller waits for the device: work that the device does
    while the host is busy is not included.
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
        """Refuses new batches from now on."""
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
    """Returns a view of a complex spectrum with real and imaginary parts on a new last axis."""
    return spectrum.view(spectrum.real.dtype).reshape(*spectrum.shape, 2)


def masked(mask: Array, spectrum: Array) -> Array:
    """Multiplies a spectrum by a complex mask; takes NumPy and CuPy arrays.

    Args:
        mask: (batch, channels, frames, bins, 2) float32, contiguous: real and imaginary parts.
        spectrum: (batch, channels, frames, bins) complex64.

    Returns:
        The target's spectrum, of the same shape as the mixture's.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # check_finite finds what overflows
        return mask.view(np.complex64)[..., 0] * spectrum


def finite_frames(estimate: Array) -> Array:
    """Tells which frames of a spectrum (batch, channels, frames, bins) are usable.

    Returns (batch, frames) bool: False for frames with NaN, Inf or numbers whose inverse STFT may
    overflow. NumPy's functions dispatch to CuPy for its arrays.
    """
    return (np.abs(estimate.view(np.float32)) <= _LARGEST).all(axis=(1, 3))


def check_finite(finite: NDArray[np.bool_], batch: Batch, audio: AudioConfig) -> None:
    """Raises EngineError with the first bad frame's time in the song unless all are finite."""
    if not finite.all():
        index, frame = map(int, np.argwhere(~finite)[0])
        raise EngineError(
            f"The engine's mask is NaN or infinite at {batch.seconds(audio, index, frame):.2f} s: "
            "try the float32 engine of this model, and compare the two with 'bsm parity'."
        )
