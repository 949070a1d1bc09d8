"""Sends batches of chunks through a plan, two in flight.

While one slot's stream computes, the next batch is copied and enqueued in the other slot, and the
host decodes and encodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bsmamba2.config.model import AudioConfig
from bsmamba2.runtime.engines.estimation import Batch, Chunks, check_finite
from bsmamba2.runtime.engines.tensorrt.memory import ChunkLimit
from bsmamba2.runtime.engines.tensorrt.slot import PlanSlot, StartedChunks


class PlanEstimator:
    """An `Estimator` that does all steps on the GPU; not thread-safe.

    Attributes:
        limit: Chunks and slots in use; fewer than requested once memory has run out.
    """

    in_flight = 2

    def __init__(
        self,
        audio: AudioConfig,
        limit: ChunkLimit,
        make_slot: Callable[[int], PlanSlot],
        free: Callable[[], None],
    ) -> None:
        """Prepares the estimator; the first batch allocates its memory.

        Args:
            audio: Audio configuration of the plan's model.
            limit: Chunks per batch, within the plan's range, and slots.
            make_slot: Makes a slot for the given number of chunks.
            free: Frees all memory that can be freed; calls `release`.
        """
        self.limit = limit
        self._audio = audio
        self._make_slot, self._free = make_slot, free
        self._slots: list[PlanSlot] = []
        self._turn = 0

    def begin(self, batch: Batch) -> StartedBatch:
        """Enqueues a batch of any size, in parts if necessary; see `Estimator`."""
        parts = self.limit.in_parts(batch.chunks, self._start, self._free)
        return StartedBatch(batch, self._audio, parts)

    def release(self) -> None:
        """Waits for the slots and drops them; later batches make new ones."""
        for slot in self._slots:
            slot.rest()
        self._slots.clear()
        self._turn = 0

    def _start(self, chunks: Chunks) -> StartedChunks:
        """Enqueues chunks in the next slot, in turn."""
        index = self._turn % self.limit.slots
        if index == len(self._slots):
            self._slots.append(self._make_slot(self.limit.chunks))
        self._turn = index + 1
        return self._slots[index].start(chunks)


@dataclass(frozen=True, eq=False)
class StartedBatch:
    """A batch in flight."""

    batch: Batch
    audio: AudioConfig
    parts: Sequence[StartedChunks]

    def result(self) -> Chunks:
        """The target; see `Pending`."""
        targets, finite = zip(*(part.result() for part in self.parts), strict=True)
        check_finite(np.concatenate(finite), self.batch, self.audio)
        return np.concatenate(targets)

    def cancel(self) -> None:
        """Does nothing: the GPU finishes what was enqueued, and the slot waits for it."""
