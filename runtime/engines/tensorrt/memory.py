"""What goes through the GPU at a time: less, and it is said, where its memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from bsmamba2.runtime.engines.stft import Array
from bsmamba2.runtime.engines.tensorrt.device import OutOfDeviceMemoryError, chunks_text

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ChunkLimit:
    """How much goes through the GPU at a time.

    Attributes:
        chunks: Chunks of a batch.
        slots: Batches that may be on their way.
    """

    def __init__(self, chunks: int, slots: int = 1) -> None:
        """Starts with what is wanted."""
        self.chunks, self.slots = chunks, slots

    def in_parts(
        self, chunks: Array, work: Callable[[Array], T], free: Callable[[], None]
    ) -> list[T]:
        """What `work` makes of chunks, as many at a time as the memory allows, in order.

        Args:
            chunks: Along the first axis.
            work: Raises OutOfDeviceMemoryError where they are too many.
            free: Gives back all memory that can be given back, before it goes on with less.

        Raises:
            OutOfDeviceMemoryError: It does not suffice for one.
        """
        results: list[T] = []
        at = 0
        while at < len(chunks):
            try:
                results.append(work(chunks[at : at + self.chunks]))
                at += self.chunks
                continue
            except OutOfDeviceMemoryError as error:
                reason = str(error)  # without the frames of its traceback, which hold memory
            free()
            self._shrink(reason)
        return results

    def _shrink(self, reason: str) -> None:
        """Half the batch, then one slot; raises OutOfDeviceMemoryError where there is no less."""
        if self.chunks > 1:
            self.chunks //= 2
            logger.warning("%s Going on with %s at a time.", reason, chunks_text(self.chunks))
        elif self.slots > 1:
            self.slots = 1
            logger.warning("%s Going on with one after the other.", reason)
        else:
            advice = "end what else uses the GPU, or use the .onnx file on the CPU"
            raise OutOfDeviceMemoryError(f"{reason.rstrip('.')}: {advice}.")
