"""Limits the chunks that the GPU gets at a time; lowers the limit if memory runs out, and warns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from bsmamba2.runtime.engines.stft import Array
from bsmamba2.runtime.engines.tensorrt.device import OutOfDeviceMemoryError, chunks_text

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ChunkLimit:
    """How many chunks the GPU gets at a time.

    Attributes:
        chunks: Largest number of chunks per batch.
        slots: Largest number of batches in flight.
    """

    def __init__(self, chunks: int, slots: int = 1) -> None:
        """Starts with the requested numbers."""
        self.chunks, self.slots = chunks, slots

    def in_parts(
        self, chunks: Array, work: Callable[[Array], T], free: Callable[[], None]
    ) -> list[T]:
        """Calls `work` on as many chunks at a time as fit into memory; returns results in order.

        Args:
            chunks: Any number of chunks, on the first axis.
            work: Raises OutOfDeviceMemoryError if it gets too many.
            free: Frees all memory that can be freed; called before going on with fewer chunks.

        Raises:
            OutOfDeviceMemoryError: Not even one chunk fits.
        """
        results: list[T] = []
        at = 0
        while at < len(chunks):
            try:
                results.append(work(chunks[at : at + self.chunks]))
                at += self.chunks
                continue
            except OutOfDeviceMemoryError as error:
                reason = str(error)  # only the text, as the traceback's frames keep memory alive
            free()
            self._shrink(reason)
        return results

    def _shrink(self, reason: str) -> None:
        """Halves the batch, then drops to one slot; raises OutOfDeviceMemoryError after that."""
        if self.chunks > 1:
            self.chunks //= 2
            logger.warning("%s Continuing with %s at a time.", reason, chunks_text(self.chunks))
        elif self.slots > 1:
            self.slots = 1
            logger.warning("%s Continuing with one batch after the other.", reason)
        else:
            advice = "end other programs that use the GPU, or use the .onnx file on the CPU"
            raise OutOfDeviceMemoryError(f"{reason.rstrip('.')}: {advice}.")
