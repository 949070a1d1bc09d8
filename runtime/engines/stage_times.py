"""Measures how long the stages of a song's separation take."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

STAGES = ("decode", "stft", "engine", "istft", "encode")
"""Stages in the order that a song passes through them; "istft" includes the mask product."""


class StageTimes:
    """Stopwatches for the stages of one song; thread-safe.

    Stages run side by side, so that their sum may exceed the wall time.

    Attributes:
        seconds: Stage -> seconds, for all of STAGES.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Context manager that adds the time its block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            with self._lock:
                self.seconds[stage] += elapsed

    def measure_each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Passes items on and adds the time spent waiting for each to a stage."""
        rest = iter(items)
        while True:
            with self.measure(stage):
                try:
                    item = next(rest)
                except StopIteration:
                    return
            yield item
