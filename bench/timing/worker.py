"""One job of `latency.py` in a process of its own, whose peak memory is therefore the job's.

    python bench/timing/worker.py MODULE:FUNCTION ARGUMENTS

The function is in this folder. It takes the arguments, which are JSON, and returns the task of a
turn and a description of itself. The process prints the description when it is ready; then, for
each line on its standard input, it runs the task and prints the figures. All output is JSON lines.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bsmamba2.errors import BsmError

Task = Callable[[], dict[str, Any]]
"""Computes one turn; returns its figures."""


def main() -> None:
    """Runs turns until the standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr

    def reply(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=replies, flush=True)

    module, _, function = sys.argv[1].partition(":")
    try:
        start = time.perf_counter()
        make = getattr(importlib.import_module(f"bench.timing.{module}"), function)
        task, about = make(**json.loads(sys.argv[2]))
        reply(about | {"load_s": time.perf_counter() - start})
        for _ in sys.stdin:
            reply(task() | {"peak_memory_mib": peak_memory_mib()})
    except (BsmError, ImportError, RuntimeError) as error:  # others leave a traceback on stderr
        reply({"error": str(error)})
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def peak_memory_mib() -> float:
    """Largest resident set of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    main()
