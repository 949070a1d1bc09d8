"""Seconds that the stages of a song took."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

STAGES = ("decode", "stft", "engine", "istft", "encode")
"""In the order that a song goes through. The mask product is with the ISTFT."""


class StageTimes:
    """A stopwatch for each stage of one song, which any thread may use.

    Stages run side by side, so that their sum may exceed the time on the wall.

    Attributes:
        seconds: Stage -> seconds, of all in STAGES.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            with self._lock:
                self.seconds[stage] += elapsed

    def measure_each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Passes items on, and adds the time that each is waited for."""
        rest = iter(items)
        while True:
            with self.measure(stage):
                try:
                    item = next(rest)
                except StopIteration:
                    return
            yield item
