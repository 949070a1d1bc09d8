"""Processes that share out work, and that end when the process that began them ends."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NamedTuple, TypeVar

from bsmamba2.errors import BsmError, DataError

Task = TypeVar("Task")
Result = TypeVar("Result")


class _Failure(NamedTuple):
    """An exception, as text: not every exception survives the way between processes."""

    for_users: bool
    message: str
    trace: str


def share_out(
    make: Callable[[Task], Result], tasks: Sequence[Task], jobs: int
) -> Generator[Result, None, None]:
    """Calls a function with each task, in this process if one is enough, else in others.

    These are started afresh, not forked, as this process may have threads: a script that comes here
    has to keep its own beginning below `if __name__ == "__main__":`. They ignore Ctrl-C, which is
    this process's to answer, and are killed when the generator is closed or this process ends.

    Args:
        make: A function of a module.
        tasks: Its arguments, which can be pickled.
        jobs: Processes at most.

    Yields:
        Results in the order in which they come.

    Raises:
        BsmError: The first that a task raised, or a process was killed.
        RuntimeError: Any other exception of a task.
    """
    if min(jobs, len(tasks)) <= 1:
        yield from map(make, tasks)
        return
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(tasks))
    workers: dict[Connection, SpawnProcess] = {}
    try:
        while waiting and len(workers) < jobs:
            connection, process = _start(context, make)
            workers[connection] = process
            connection.send(waiting.pop())
        busy = set(workers)
        while busy:
            for ready in multiprocessing.connection.wait(list(busy)):
                assert isinstance(ready, Connection)
                yield _received(ready)
                if waiting:
                    ready.send(waiting.pop())
                else:
                    busy.remove(ready)
    except (EOFError, ConnectionError) as error:
        raise DataError(
            "A process died before its work was done, perhaps for want of memory: call again with "
            "fewer --jobs."
        ) from error
    finally:
        for process in workers.values():
            process.kill()
        for connection, process in workers.items():
            process.join()
            connection.close()


def _start(
    context: SpawnContext, make: Callable[[Task], Result]
) -> tuple[Connection, SpawnProcess]:
    """A process that waits for tasks, and the way to it."""
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, make), daemon=True)
    # A process inherits what is blocked, so that it ignores Ctrl-C from its first moment on. The
    # tracker, which the first process would start, unblocks it: so it is started before.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    there.close()  # of this process: the other one's death ends the connection
    return here, process


def _received(connection: Connection) -> Any:
    result = connection.recv()
    if not isinstance(result, _Failure):
        return result
    if result.for_users:
        raise DataError(result.message)
    raise RuntimeError(result.message) from RuntimeError(result.trace)


def _work(connection: Connection, make: Callable[[Any], Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        task = connection.recv()
        result: Any
        try:
            result = make(task)
        except BsmError as error:
            result = _Failure(True, str(error), "")
        except Exception as error:
            message = "".join(traceback.format_exception_only(error)).strip()
            result = _Failure(False, message, traceback.format_exc())
        connection.send(result)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
