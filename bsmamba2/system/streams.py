"""Standard streams of a command: what nobody can read must not end the work.

stderr may be closed (a daemon, pythonw, `2>&-`), full, or a pipe whose reader has gone. Progress
and messages are then lost, and the exit code tells how the work ended.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

_STANDARD = range(3)  # descriptors of stdin, stdout and stderr


class _Droppable(io.FileIO):
    """A file that drops what cannot be written to it."""

    def write(self, data: Any, /) -> int:
        """Writes bytes; returns how many were written or dropped."""
        with contextlib.suppress(OSError):
            return super().write(data) or len(data)  # None if a pipe that must not block is full
        return len(data)


def secure_standard_streams() -> None:
    """Reserves the standard descriptors that are closed, and makes stderr a stream of this module.

    A file takes the lowest free descriptor: without the reservation, a stem could get number 2, and
    the messages of a C library would be written into it. Does nothing to a stderr that Python code
    has replaced.
    """
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            _reserve(number)
    # Python writes to a Windows console without descriptors.
    console = os.name == "nt" and sys.stderr is not None and sys.stderr.isatty()
    if sys.stderr is sys.__stderr__ and not console:
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Droppable(2, "w", closefd=False)),
            encoding=sys.stderr.encoding if sys.stderr else "utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )


def _reserve(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)  # as for any standard stream: programs that we run need it
