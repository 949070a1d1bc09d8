"""How many chunks an engine gets at a time where nobody says it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from bsmamba2.runtime.engines.base import Engine

MOST_CHUNKS = 4
"""Of a batch on a GPU that is not a plan's; provisional, for no GPU was measured."""
_SPARE = 0.2  # part of the free memory that others may need meanwhile


@runtime_checkable
class MeasuringEngine(Protocol):
    """An engine that knows what its chunks take of a device's memory."""

    def chunk_memory(self) -> tuple[int, int] | None:
        """Bytes that a chunk of its model's length takes, measured, and bytes that are free.

        None where a batch brings nothing.

        Raises:
            EngineError: Not even one chunk can be run.
        """
        ...


def useful_batch(engine: Engine) -> int:
    """Chunks at a time: what a plan was built for, what fits a GPU's memory, or 1.

    On a CPU a chunk keeps all threads busy: batches of 2 and 4 took as long a chunk as 1, and
    memory for each chunk more.

    Raises:
        EngineError: As `MeasuringEngine.chunk_memory`.
    """
    if engine.batch:
        return engine.batch[1]
    measured = engine.chunk_memory() if isinstance(engine, MeasuringEngine) else None
    if measured is None:
        return 1
    chunk_bytes, free_bytes = measured
    return max(1, min(MOST_CHUNKS, int(free_bytes * (1 - _SPARE)) // max(1, chunk_bytes)))
