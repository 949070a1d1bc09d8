"""Runs `bsm` in processes that may be killed, forked from one that has done all imports."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

LONGEST_S = 300
"""Limit for a command that should end by itself; generous, as the machine may be busy."""
_IMPORTED = (
    *(__name__, "torch._dynamo", "torch._inductor.config", "torch.utils.tensorboard", "onnx"),
    *("tqdm.contrib.logging", "bsmamba2.training.train", "bsmamba2.runtime.songs.separate_files"),
    *(f"bsmamba2.cli.{name}" for name in ("infer", "train", "eval", "export", "parity", "info")),
    *("bsmamba2.cli.import_", "fuzz_worker"),
)
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # each reserves 64 MiB of the address space that the fuzzer counts
    "PYTHONPATH": str(Path(__file__).parent),
    "PYTHONSAFEPATH": "1",  # nothing is imported from the working directory
    "PYTHONWARNINGS": "default,ignore::DeprecationWarning",  # users never see those
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; if negative, the signal that ended it."""
    out: str
    """Its standard output."""
    err: str
    """Its standard error."""


class Forked:
    """A function running in a process of its own, whose outputs go to two files."""

    def __init__(self, function: Callable[..., None], *arguments: Any, said: Path) -> None:
        """Starts the process; `said` is a folder for its outputs."""
        said.mkdir(exist_ok=True)
        self._said = said
        target = functools.partial(_redirected, function, said)
        self.process = _server().Process(target=target, args=arguments)
        self.process.start()

    def end(self, longest_s: float = LONGEST_S) -> Ended:
        """Waits until it ends; if it hangs, kills it and raises TimeoutError."""
        self.process.join(longest_s)
        if self.process.is_alive():
            self.kill_after(0)
            raise TimeoutError(f"more than {longest_s} s")
        return self._ended()

    def kill_after(self, seconds: float) -> Ended:
        """Sends SIGKILL after that many seconds, unless it has ended before."""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        return self._ended()

    def _ended(self) -> Ended:
        paths = (self._said / name for name in ("stdout", "stderr"))
        out, err = (path.read_text(errors="replace") if path.exists() else "" for path in paths)
        code = self.process.exitcode
        assert code is not None
        return Ended(code, out, err)


def start(arguments: list[str], work: Path, said: Path | None = None) -> Forked:
    """Starts `bsm ARGUMENTS` in a folder."""
    return Forked(_command, arguments, work, said=said or work / "said")


def timed(arguments: list[str], work: Path) -> float:
    """Seconds of an undisturbed run; raises RuntimeError if it fails."""
    begin = time.monotonic()
    ended = start(arguments, work).end()
    if ended.code:
        raise RuntimeError(f"the undisturbed run failed: {ended.err}")
    return time.monotonic() - begin


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _redirected(function: Callable[..., None], said: Path, *arguments: Any) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(said / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        os.dup2(handle, number)
        os.close(handle)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, errors="backslashreplace"))
    import torch

    torch.set_num_threads(1)
    function(*arguments)


def _command(arguments: list[str], work: Path) -> None:
    from bsmamba2.cli import main

    os.chdir(work)
    main(arguments)
