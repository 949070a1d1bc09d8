"""Runs work on threads beside the caller's and returns the results in order.

A song's stages run in parallel: one lane calls the engine, another computes the inverse STFT, a
third encodes, and the caller's thread decodes and computes the STFT. `in_order` keeps only a few
pieces of work in progress, so that memory does not grow with the song and no lane has to wait:

    lane = Lane("engine")
    for mask in in_order((lane.submit(work) for work in song), 3):
        ...

Threads are daemons and exist only while there is work. When work is abandoned (by an error, by
Ctrl-C or by a caller that stops early), waiting pieces are dropped and running ones are waited
for, but not for ever: an engine that hangs must not keep the process alive.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from typing import Protocol, TypeVar

from bsmamba2.errors import resource_error

PATIENCE_S = 5.0
"""Seconds to wait for abandoned work to end. An engine that takes longer is left running on its
thread, and is not called again; the caller does not wait for it."""

_MOMENT_S = 1.0

T = TypeVar("T")
Result = TypeVar("Result", covariant=True)


class Pending(Protocol[Result]):
    """A piece of work in progress; `concurrent.futures.Future` fits this protocol, too."""

    def result(self) -> Result:
        """Waits for the result and returns it; raises what the work raised."""
        ...

    def cancel(self) -> object:
        """Abandons the work: its result is no longer wanted."""
        ...


class Task(Future[T]):
    """A piece of work in a lane."""

    def cancel(self) -> bool:
        """Drops the work, or waits up to PATIENCE_S for its end; returns whether it has ended."""
        return super().cancel() or self in wait([self], PATIENCE_S).done


class Lane:
    """Calls functions in the order in which they are submitted, on threads of its own."""

    def __init__(self, name: str, threads: int = 1) -> None:
        """Starts no thread yet.

        Args:
            name: Name of the threads.
            threads: Number of functions that may run at once.
        """
        self._name, self._most = name, threads
        self._threads = 0
        self._waiting: deque[tuple[Task[object], Callable[[], object]]] = deque()
        self._at_work: set[Task[object]] = set()
        self._changed = threading.Condition()
        self._closed = False

    def submit(self, function: Callable[[], T]) -> Task[T]:
        """Queues a function to be called in its turn.

        Raises:
            CancelledError: The lane is closed.
            ResourceError: The system refused its first thread; with fewer threads than it may have,
                a lane takes longer.
        """
        task: Task[T] = Task()
        with self._changed:
            if self._closed:
                raise CancelledError
            if self._threads < self._most:
                self._start_thread()
            self._waiting.append((task, function))  # type: ignore[arg-type]
        return task

    def stop(self) -> None:
        """Drops waiting work and accepts no more; running work continues."""
        with self._changed:
            self._closed = True
            dropped = [task for task, _ in self._waiting]
        for task in dropped:
            Future.cancel(task)  # without waiting for one that has just begun

    def close(self) -> None:
        """Stops, releases callers that wait for running work, and waits up to PATIENCE_S for it."""
        self.stop()
        with self._changed:
            left = list(self._at_work)
        for task in left:
            with contextlib.suppress(InvalidStateError):  # it has just finished
                task.set_exception(CancelledError())
        with self._changed:
            self._changed.wait_for(lambda: not self._threads, PATIENCE_S)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError as error:
            if not self._threads:
                raise (resource_error(error) or error) from error
        else:
            self._threads += 1

    def _work(self) -> None:
        """Runs waiting work until there is none: the body of a thread."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._threads -= 1
                    self._changed.notify_all()
                    return
                task, function = self._waiting.popleft()
                if not task.set_running_or_notify_cancel():
                    continue
                self._at_work.add(task)
            _run(task, function)
            with self._changed:
                self._at_work.remove(task)
            del task, function  # they keep arrays alive


def _run(task: Task[T], function: Callable[[], T]) -> None:
    """Calls the function; its result is dropped if a closed lane has already ended the task."""
    with contextlib.suppress(InvalidStateError):
        try:
            result = function()
        except BaseException as error:
            task.set_exception(error)
        else:
            task.set_result(result)
        del task, function  # otherwise an error's traceback and its task form a cycle


def at_work() -> bool:
    """Whether work of this package still runs on a thread, after waiting a moment for its end.

    The process must then be ended by `os._exit`: a library in the middle of its work would crash a
    normal exit.
    """
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("bsm-")]
    for thread in threads:
        thread.join(_MOMENT_S)
    return any(thread.is_alive() for thread in threads)


def in_order(begun: Iterable[Pending[T]], ahead: int) -> Generator[T]:
    """Yields the results of pieces of work in order, and begins new pieces meanwhile.

    Args:
        begun: Begins a piece of work each time it is advanced.
        ahead: Number of pieces to begin before waiting for the first result, at least 1.

    Raises:
        Exception: What `begun` or a piece of work raises; all other pieces are cancelled.
    """
    pieces: deque[Pending[T]] = deque()
    try:
        for piece in begun:
            pieces.append(piece)
            if len(pieces) >= ahead:
                yield pieces[0].result()
                pieces.popleft()
        while pieces:
            yield pieces[0].result()
            pieces.popleft()
    finally:
        for piece in reversed(pieces):  # running ones last, so that no waiting one begins
            piece.cancel()
