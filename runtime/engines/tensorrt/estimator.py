"""Batches of chunks through a plan, two at a time.

While one slot's stream computes, the other's next batch is copied and enqueued, and the host
decodes and encodes. Where the GPU's memory does not suffice, batches get smaller, then one slot is
given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import EngineError
from bsmamba2.runtime.engines.estimation import Batch, Chunks, check_finite
from bsmamba2.runtime.engines.tensorrt.device import OutOfDeviceMemoryError, no_memory, say_less
from bsmamba2.runtime.engines.tensorrt.slot import PlanSlot

logger = logging.getLogger(__name__)

_SLOTS = 2

Result = tuple[Chunks, NDArray[np.bool_]]
"""The target, and which of its frames have numbers only: (batch, frames)."""


class PlanEstimator:
    """The way from chunks to the target in them, all on the GPU. Not for several threads at once.

    Attributes:
        batch: Chunks that go at a time: as asked for, or fewer since memory ran out.
    """

    in_flight = _SLOTS

    def __init__(
        self,
        audio: AudioConfig,
        batch: int,
        make_slot: Callable[[int], PlanSlot],
        free_memory: Callable[[], bool],
    ) -> None:
        """Allocates nothing yet.

        Args:
            audio: Of the plan's model.
            batch: Chunks at a time, within the plan's range.
            make_slot: Makes a slot for so many chunks.
            free_memory: Gives back what slots that are gone have held; True if somebody else has
                given memory up, too.
        """
        self.batch = batch
        self._audio = audio
        self._make_slot, self._free_memory = make_slot, free_memory
        self._lanes: list[_Lane] = []
        self._most_lanes = _SLOTS
        self._turn = 0
        self._shrinkings = 0

    def begin(self, batch: Batch) -> PlanPending:
        """Enqueues a batch of any size, in parts if need be; see `Estimator`."""
        return PlanPending(self, batch, self.start(batch.chunks), self._audio)

    def start(self, chunks: Chunks) -> list[_Part]:
        """Enqueues chunks, in as many parts as it takes.

        Raises:
            EngineError: TensorRT or CUDA failed, or not even one chunk fits the GPU's memory.
        """
        parts: list[_Part] = []
        at = 0
        while at < len(chunks):
            started = self._start_some(chunks[at : at + self.batch])
            if isinstance(started, OutOfDeviceMemoryError):
                self._shrink(started)
            else:
                parts.append(started)
                at += len(started.chunks)
        return parts

    def finish(self, part: _Part) -> Result:
        """A part's result; done again in smaller parts where memory ran out.

        Raises:
            EngineError: As `start`.
        """
        part.lane.rest()
        if isinstance(part.outcome, OutOfDeviceMemoryError):
            if part.shrinkings == self._shrinkings:  # else there is more memory by now
                self._shrink(part.outcome)
            again = [self.finish(smaller) for smaller in self.start(part.chunks)]
            return np.concatenate([r[0] for r in again]), np.concatenate([r[1] for r in again])
        if isinstance(part.outcome, EngineError):
            raise part.outcome
        assert part.outcome is not None
        return part.outcome

    def release(self) -> bool:
        """Gives its slots up, after what is on their way; later batches make new ones.

        Returns:
            Whether there were any.
        """
        had_slots = bool(self._lanes)
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._turn = 0
        return had_slots

    def _start_some(self, chunks: Chunks) -> _Part | OutOfDeviceMemoryError:
        """Enqueues chunks in the slot whose turn it is."""
        index = self._turn % self._most_lanes
        try:
            if index == len(self._lanes):
                self._lanes.append(_Lane(self._make_slot(self.batch)))
            self._turn = index + 1
            return self._lanes[index].start(chunks, self._shrinkings)
        except OutOfDeviceMemoryError as error:
            return _without_frames(error)

    def _shrink(self, error: OutOfDeviceMemoryError) -> None:
        """Half the batch, or one slot instead of two; raises `error` where there is no less.

        As much as before goes on where somebody else has given memory up.
        """
        self.release()
        self._shrinkings += 1
        if self._free_memory():
            return
        if self.batch > 1:
            self.batch //= 2
            say_less(error, self.batch)
        elif self._most_lanes > 1:
            self._most_lanes = 1
            logger.warning("%s Going on with one after the other.", error)
        else:
            raise no_memory(error)


@dataclass(eq=False)
class _Part:
    """Chunks that were started together."""

    chunks: Chunks
    """Kept, to be done again where memory runs out."""
    shrinkings: int
    """How often the estimator had shrunk when they were started."""
    lane: _Lane
    outcome: Result | EngineError | None = None
    """None on the way."""


class _Lane:
    """A slot, and what is on its way there."""

    def __init__(self, slot: PlanSlot) -> None:
        self._slot: PlanSlot | None = slot
        self._part: _Part | None = None

    def start(self, chunks: Chunks, shrinkings: int) -> _Part:
        """Enqueues chunks, when what was on its way is done."""
        self.rest()
        assert self._slot is not None
        self._slot.start(chunks)
        self._part = _Part(chunks, shrinkings, self)
        return self._part

    def rest(self) -> None:
        """Waits for what is on its way, and keeps its outcome."""
        part, self._part = self._part, None
        if part is None:
            return
        assert self._slot is not None
        try:
            part.outcome = self._slot.wait(len(part.chunks))
        except OutOfDeviceMemoryError as error:
            part.outcome = _without_frames(error)
        except EngineError as error:
            part.outcome = error

    def close(self) -> None:
        """Gives the slot up, after what is on its way."""
        self.rest()
        self._slot = None


def _without_frames(error: OutOfDeviceMemoryError) -> OutOfDeviceMemoryError:
    """The same error; the frames of a traceback would hold the memory that is to be freed."""
    return OutOfDeviceMemoryError(str(error))


class PlanPending:
    """A batch on its way."""

    def __init__(
        self, estimator: PlanEstimator, batch: Batch, parts: list[_Part], audio: AudioConfig
    ) -> None:
        self._estimator, self._batch, self._parts = estimator, batch, parts
        self._audio = audio

    def result(self) -> Chunks:
        """The target; see `Pending`."""
        results = [self._estimator.finish(part) for part in self._parts]
        check_finite(np.concatenate([finite for _, finite in results]), self._batch, self._audio)
        return np.concatenate([target for target, _ in results])

    def cancel(self) -> None:
        """Nothing: the GPU ends what is on its way, and its slot waits for that."""
