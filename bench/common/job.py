"""What `latency.py` and the processes that measure for it say to each other; standard library only.

A process gets its `Job` as JSON in its arguments. It says that it is ready, then answers each line
on its standard input with one line of JSON. So its peak memory is its own, and `latency.py`
decides who computes when.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process is for."""

    kind: str
    """Name of an engine or a peer, or of another task of its worker."""
    worker: str = "latency_worker.py"
    """Script beside this file."""
    python: str = ""
    """Interpreter; empty is that of this process."""
    threads: int | None = None
    """CPU threads; None is the backend's own choice."""
    seconds: float = 0
    """Of audio in a chunk; of measuring, for a rate of the machine."""
    file: str = ""
    """Of the engine, or where it starts from; "prepare": configuration or checkpoint."""
    mask: str = ""
    """Where an engine leaves its mask after each chunk (.npy)."""
    shape: tuple[int, ...] = ()
    """Of a matrix product, (m, k, n)."""
    counts: tuple[int, ...] = ()
    """Of chunks: lengths of songs, or sizes of batches."""
    weights: str = ""
    """"prepare": the checkpoint to write, if any."""
    onnx: str = ""
    """"prepare": the ONNX file to write, if any."""
    int8: str = ""
    """"prepare": the ONNX file with int8 products to write, if any."""

    def command(self) -> list[str]:
        """The process's command line."""
        return [self.python or sys.executable, str(HERE / self.worker), json.dumps(asdict(self))]


Task = Callable[[], dict[str, Any]]
"""What is done for each line."""


class Skip(Exception):  # noqa: N818  (a finding, not an error)
    """Says in a sentence why a job cannot be had here, which is no failure."""


def serve(start: Callable[[Job], tuple[Task, dict[str, Any]]], *errors: type[Exception]) -> None:
    """Does one job until the standard input ends.

    Args:
        start: From a job to its task and a description of it.
        errors: Whose message is the whole answer; others leave a traceback on stderr.
    """
    replies = _take_stdout()
    job = Job(**json.loads(sys.argv[1]))
    try:
        begin = time.perf_counter()
        task, about = start(job)
        _reply(replies, {"about": about, "load_s": time.perf_counter() - begin})
        for _ in sys.stdin:
            _reply(replies, task() | {"peak_memory_mib": peak_memory_mib()})
    except Skip as why:
        _reply(replies, {"skipped": str(why)})
    except errors as error:
        _reply(replies, {"error": str(error)})
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def peak_memory_mib() -> float:
    """Largest resident set of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _take_stdout() -> TextIO:
    """The standard output for replies alone; whatever else a library prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def _reply(replies: TextIO, values: dict[str, Any]) -> None:
    print(json.dumps(values), file=replies, flush=True)
