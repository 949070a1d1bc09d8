"""Commands of `bsm` in processes that may be killed; they fork from one that has imported all."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

LONGEST_S = 300
"""Of a command that is left to end by itself; generous, as the machine may be busy."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    out: str
    """Its standard output."""
    err: str
    """Its standard error."""


class Command:
    """A command at work."""

    def __init__(self, arguments: list[str], work: Path, said: Path) -> None:
        """Starts it.

        Args:
            arguments: Of `bsm`.
            work: The folder it runs in.
            said: A folder for what it prints, elsewhere.
        """
        said.mkdir(exist_ok=True)
        self._said = said
        self.process: ForkServerProcess = _server().Process(
            target=_command, args=(arguments, work, said)
        )
        self.process.start()

    def end(self) -> Ended:
        """Waits for its end; raises TimeoutError if it hangs."""
        self.process.join(LONGEST_S)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"a command has not ended after {LONGEST_S} s")
        return self._ended()

    def kill_after(self, seconds: float) -> Ended:
        """Sends SIGKILL after so many seconds, unless it has ended before."""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        return self._ended()

    def _ended(self) -> Ended:
        out, err = (self._said / name for name in ("stdout", "stderr"))
        said = [path.read_text() if path.exists() else "" for path in (out, err)]
        code = self.process.exitcode
        assert code is not None
        return Ended(code, *said)


def timed(arguments: list[str], work: Path, said: Path) -> tuple[Ended, float]:
    """An undisturbed run and its seconds; raises RuntimeError if it fails."""
    start = time.monotonic()
    ended = Command(arguments, work, said).end()
    if ended.code:
        raise RuntimeError(f"the undisturbed run failed: {ended.err}")
    return ended, time.monotonic() - start


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    slow = ["bsmamba2.training.train", "bsmamba2.cli.train", "torch._dynamo", "onnxruntime"]
    quick = ["bsmamba2.cli.infer", "bsmamba2.runtime.songs.separate_files", "tqdm.contrib.logging"]
    context.set_forkserver_preload([*slow, *quick, "torch.utils.tensorboard", __name__])
    return context


def _command(arguments: list[str], work: Path, said: Path) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(work)
    import torch

    torch.set_num_threads(1)
    from bsmamba2.cli import main

    main(arguments)


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    return os.name == "posix" and os.geteuid() == 0 and _mount_works()


@functools.cache
def _mount_works() -> bool:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), 1 << 16):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes in memory over an empty folder; unmounted afterwards."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def resize(folder: Path, options: str) -> None:
    """Mounts a `small_disk` with other options, such as "size=1000000" or "ro"."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
