"""Signals that ask the process to end: work in progress is finished first, or cleaned up."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any


class StopRequest:
    """The signal that asked the process to end, 0 for none."""

    signal: int = 0


@contextlib.contextmanager
def stop_on_signals(on_first: Callable[[], None] = lambda: None) -> Iterator[StopRequest]:
    """Records the first SIGINT or SIGTERM in the block; a second one ends the process as usual.

    Args:
        on_first: Called in the handler of the first signal, but not in processes forked meanwhile.
            It interrupts any line of Python: it must take no lock and use no buffered file.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may handle signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own = os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number
        _restore(before)
        if os.getpid() == own:
            on_first()

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        _restore(before)


class Terminated(BaseException):
    """A signal asked the process to end; like `KeyboardInterrupt`, but not for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def terminated_by_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise Terminated in the block, so that unfinished files are removed.

    In processes forked meanwhile, these signals have their usual effect.
    """
    names = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    numbers = [number for number in names if number and signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    own = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            raise Terminated(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        _restore(dict.fromkeys(numbers, signal.SIG_DFL))


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
