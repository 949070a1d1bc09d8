"""Work on threads of its own, and its results in order.

A song's stages run side by side: one lane calls the engine, another does the inverse STFT, one
encodes, and the caller's own thread decodes and does the STFT. `in_order` keeps a few pieces of
work begun, so that memory does not grow with the song and no lane waits for the next piece:

    lane = Lane("engine")
    for mask in in_order((lane.submit(work) for work in song), 3):
        ...

Threads are daemons and there only while there is work. What is left, by an error, by Ctrl-C or
because nobody wants more, ends them: what waits is dropped, and what is at work is waited for, but
not for ever: an engine that hangs must not keep the process.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from typing import Protocol, TypeVar

PATIENCE_S = 5.0
"""Seconds that left work may take to end. An engine at work for longer goes on on its thread, and
nothing else is called on it; who asked for an end should not wait for it."""

T = TypeVar("T")
Result = TypeVar("Result", covariant=True)


class Pending(Protocol[Result]):
    """A piece of work that was begun; a `concurrent.futures.Future` is one, too."""

    def result(self) -> Result:
        """What came of it, waited for if need be; raises what the work raised."""
        ...

    def cancel(self) -> object:
        """Says that nobody wants it any more."""
        ...


class Task(Future[T]):
    """A piece of work in a lane."""

    def cancel(self) -> bool:
        """Drops the work, or waits up to PATIENCE_S for its end; True if none of it goes on."""
        return super().cancel() or self in wait([self], PATIENCE_S).done


class Lane:
    """Calls functions in the order they come in, on threads of its own."""

    def __init__(self, name: str, threads: int = 1) -> None:
        """Starts nothing yet.

        Args:
            name: Of the threads.
            threads: Functions that may run at a time.
        """
        self._name, self._most = name, threads
        self._threads = 0
        self._waiting: deque[tuple[Task[object], Callable[[], object]]] = deque()
        self._at_work: set[Task[object]] = set()
        self._changed = threading.Condition()
        self._closed = False

    def submit(self, function: Callable[[], T]) -> Task[T]:
        """Has a function called when its turn comes.

        Raises:
            CancelledError: The lane is closed.
        """
        task: Task[T] = Task()
        with self._changed:
            if self._closed:
                raise CancelledError
            if self._threads < self._most:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._threads += 1
            self._waiting.append((task, function))  # type: ignore[arg-type]
        return task

    def stop(self) -> None:
        """Drops what waits, and takes nothing new; what is at work goes on."""
        with self._changed:
            self._closed = True
            dropped = [task for task, _ in self._waiting]
        for task in dropped:
            Future.cancel(task)  # without waiting for one that has just begun

    def close(self) -> None:
        """Stops; who waits for what is at work waits no longer, and this up to PATIENCE_S."""
        self.stop()
        with self._changed:
            left = list(self._at_work)
        for task in left:
            with contextlib.suppress(InvalidStateError):  # just done
                task.set_exception(CancelledError())
        with self._changed:
            self._changed.wait_for(lambda: not self._threads, PATIENCE_S)

    def _work(self) -> None:
        """The life of a thread."""
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
            del task, function  # they hold arrays


def _run(task: Task[T], function: Callable[[], T]) -> None:
    """Calls the function; a closed lane has given the task its end already."""
    with contextlib.suppress(InvalidStateError):
        try:
            result = function()
        except BaseException as error:
            task.set_exception(error)
        else:
            task.set_result(result)
        del task, function  # the frame of an error must not hold what holds the error


def in_order(begun: Iterable[Pending[T]], ahead: int) -> Generator[T]:
    """Results in order, of work that begins as this is iterated over.

    Args:
        begun: Begins a piece whenever it is asked for the next one.
        ahead: Pieces to begin before the first one's result is waited for, at least 1.

    Raises:
        Exception: What `begun` or a piece of work raises; nothing that was begun goes on then.
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
        for piece in reversed(pieces):  # those at work last, so that no next one begins
            piece.cancel()
