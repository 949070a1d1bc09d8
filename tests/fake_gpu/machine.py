"""Memory and streams. Work runs as late as CUDA may run it: when the host waits for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np

Work = Callable[[], object]


class CUDARuntimeError(RuntimeError):
    """An error of CUDA, with its number."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{text}")
        self.status = status


class OutOfMemoryError(MemoryError):
    """CuPy's memory pool has no memory left."""


CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"
OutOfMemoryError.__module__ = "cupy.cuda.memory"


class Machine:
    """One GPU and its driver.

    Attributes:
        memory: Bytes of device memory.
        needed: The CUDA release that TensorRT requires from the driver.
        peak: The most bytes that were in use at once.
        log: The host's calls in order: (name, number of the stream).
    """

    def __init__(self, memory: int = 1 << 40) -> None:
        self.memory = memory
        self.devices = 1
        self.capability = "90"
        self.driver, self.runtime, self.needed = 13020, 13020, 13020
        self.used = self.peak = 0
        self.log: list[tuple[str, int]] = []
        self.streams: list[Stream] = []
        self.current = self.default = Stream(self)
        self.fft_plan: Any = None
        self.fail_at: dict[str, Exception] = {}
        self._blocks: dict[int, weakref.ref[np.ndarray]] = {}
        self._pinned: list[weakref.ref[np.ndarray]] = []

    def note(self, what: str, stream: Stream) -> None:
        """Logs a call, and raises the error that a test has set for it."""
        self.log.append((what, stream.number))
        if what in self.fail_at:
            raise self.fail_at.pop(what)

    def allocate(self, nbytes: int) -> np.ndarray:
        """Allocates device memory, with no byte zero."""
        if self.current.captured is not None:
            raise CUDARuntimeError(900, "cudaErrorStreamCaptureUnsupported")
        if self.used + nbytes > self.memory:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")
        block = np.full(max(nbytes, 1), 0xFF, np.uint8)  # NaN in float32
        self.used += nbytes
        self.peak = max(self.peak, self.used)
        weakref.finalize(block, self._free, nbytes, address_of(block))
        self._blocks[address_of(block)] = weakref.ref(block)
        return block

    def at(self, address: int, nbytes: int) -> np.ndarray:
        """The allocated bytes at an address."""
        reference = self._blocks.get(address)
        block = reference() if reference else None
        if block is None or block.nbytes < nbytes:
            raise CUDARuntimeError(700, "cudaErrorIllegalAddress")
        return block

    def pin(self, array: np.ndarray) -> np.ndarray:
        """Marks host memory as pinned: asynchronous copies use it while the host goes on."""
        self._pinned.append(weakref.ref(array))
        return array

    def is_pinned(self, array: np.ndarray) -> bool:
        return any(ref() is array for ref in self._pinned)

    def do(self, work: Work) -> None:
        """Enqueues work on the current stream."""
        self.current.enqueue(work)

    def _free(self, nbytes: int, address: int) -> None:
        self.used -= nbytes
        self._blocks.pop(address, None)


class Stream:
    """A queue of work; also a context manager, as CuPy's is."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.number = len(machine.streams)
        self.ptr = 1000 + self.number
        self.captured: list[Work] | None = None
        self._queue: list[Work] = []
        self._before: list[Stream] = []
        machine.streams.append(self)

    def enqueue(self, work: Work) -> None:
        (self._queue if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        if self.captured is not None:
            raise CUDARuntimeError(900, "cudaErrorStreamCaptureUnsupported")
        queue, self._queue = self._queue, []
        for work in queue:
            work()
        self._machine.note("synchronize", self)

    def begin_capture(self, mode: int | None = None) -> None:
        assert self.captured is None
        self._machine.note("capture", self)
        self.captured = []

    def end_capture(self) -> Graph:
        assert self.captured is not None
        captured, self.captured = self.captured, None
        self._machine.note("captured", self)
        return Graph(self._machine, captured)

    def __enter__(self) -> Stream:
        self._before.append(self._machine.current)
        self._machine.current = self
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.current = self._before.pop()


class Graph:
    """A captured graph of work."""

    def __init__(self, machine: Machine, work: list[Work]) -> None:
        self._machine, self._work = machine, work

    def launch(self, stream: Stream | None = None) -> None:
        stream = stream or self._machine.current
        self._machine.note("launch", stream)
        for work in self._work:
            stream.enqueue(work)


def address_of(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@contextmanager
def quiet() -> Any:
    """Silences warnings of arithmetic on uninitialised memory."""
    with np.errstate(all="ignore"):
        yield
