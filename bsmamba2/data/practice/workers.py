"""Worker processes that end when the process that started them ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from bsmamba2.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")


def share_out(
    make: Callable[[Task], Result], tasks: Sequence[Task], jobs: int
) -> Generator[Result, None, None]:
    """Calls a function with each task, in this process if one is enough, otherwise in several.

    Workers are spawned, not forked, because this process may have threads; a script that calls
    this must guard its entry point with `if __name__ == "__main__":`. They ignore Ctrl-C, which
    this process handles, and end when the generator is closed or this process ends.

    Args:
        make: A module-level function.
        tasks: Its arguments, which must be picklable.
        jobs: Maximum number of processes.

    Yields:
        Results in order of completion.

    Raises:
        DataError: A process was killed.
        Exception: The first exception that a task raised.
    """
    if min(jobs, len(tasks)) <= 1:
        yield from map(make, tasks)
        return
    context = multiprocessing.get_context("spawn")
    ended, end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), context, _end_with, (ended,))
    try:
        # Workers inherit the blocked signal, so they ignore Ctrl-C from their first moment on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            futures = [pool.submit(make, task) for task in tasks]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "A process died before its work was done, perhaps for lack of memory: try again with "
            "fewer --jobs."
        ) from error
    finally:
        end.close()
        pool.shutdown(cancel_futures=True)


def _end_with(ended: Connection) -> None:
    """Ends this process when the other end of the pipe closes, however its process ended."""

    def watch() -> None:
        wait([ended])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
