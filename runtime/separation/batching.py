"""The default batch size: how many chunks an engine gets at a time."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from bsmamba2.runtime.engines.base import Engine

MOST_CHUNKS = 4
"""Largest default batch on a GPU, except for plans; provisional, as no GPU was measured."""
_SPARE = 0.2  # share of the free memory that is left to other processes


@runtime_checkable
class MeasuringEngine(Protocol):
    """An engine that can measure how much device memory a chunk takes."""

    def chunk_memory(self) -> tuple[int, int] | None:
        """Returns the bytes that a chunk of the model's length takes, measured, and those free.

        Returns None where batches larger than 1 gain nothing.

        Raises:
            EngineError: Not even one chunk fits.
        """
        ...


def useful_batch(engine: Engine) -> int:
    """Returns the default batch size: the one a plan was built for, what fits into a GPU, or 1.

    On a CPU a single chunk keeps all threads busy: with batches of 2 and 4 each chunk took as long
    as alone, and every further chunk took more memory.

    Raises:
        EngineError: See `MeasuringEngine.chunk_memory`.
    """
    if engine.batch:
        return engine.batch[1]
    measured = engine.chunk_memory() if isinstance(engine, MeasuringEngine) else None
    if measured is None:
        return 1
    chunk_bytes, free_bytes = measured
    return max(1, min(MOST_CHUNKS, int(free_bytes * (1 - _SPARE)) // max(1, chunk_bytes)))
