"""Processes that take turns: A B C, A B C, ... with one of them computing at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.common.job import Job, Skip
from bsmamba2.errors import EngineError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SETTLE_S = 0.2  # the threads of a pool look for more work for a while after their last

Say = Callable[[str], None]


class Process(contextlib.AbstractContextManager["Process"]):
    """A job in a process of its own, ready when this object is.

    The caller should be small: the peak that a system reports for a process can begin with the
    size of the one it was forked from.
    """

    def __init__(self, job: Job) -> None:
        """Starts it and waits until it is ready.

        Raises:
            EngineError: It fails.
            Skip: What it is for cannot be had here.
        """
        threads = dict.fromkeys(_THREAD_VARIABLES, str(job.threads)) if job.threads else {}
        self._job = job
        self._process = subprocess.Popen(
            job.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads,
        )
        try:
            ready = self._reply()
        except BaseException:
            self.close()
            raise
        self.about: dict[str, Any] = ready["about"]
        self.load_s: float = ready["load_s"]

    def __call__(self) -> dict[str, float]:
        """Has the job done once; raises EngineError when it fails."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # the missing reply says it
            print("go", file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": self._end()}
        if "skipped" in reply:
            raise Skip(reply["skipped"])
        if "error" in reply:
            folder = f"{Path(self._job.file).parent}{os.sep}"
            raise EngineError(reply["error"].replace(folder, ""))
        return reply

    def _end(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "Its process was killed, probably for want of memory."
        return f"Its process ended with exit status {code}: see the messages above."

    def close(self) -> None:
        """Ends the process."""
        self._process.__exit__(None, None, None)  # closes the pipes, so that it ends, and waits

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Measured:
    """What the rounds gave; what failed is in `failed` only."""

    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Name -> the process's answers, the warm-up first."""
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> what the process says of itself, with `load_s`."""
    reference: str | None = None
    """The engine whose masks the others were compared with."""
    relative_rms: dict[str, float] = field(default_factory=dict)
    """Name -> the worst round's distance to the reference."""
    failed: dict[str, str] = field(default_factory=dict)
    """Name -> reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> why it is not to be had here."""


def take_turns(
    jobs: Mapping[str, Job],
    rounds: int,
    say: Say,
    after: Callable[[Measured], None] = lambda _: None,
) -> Measured:
    """Lets processes compute in turn, once to warm up and then for some rounds.

    Args:
        jobs: Name -> job. Masks are compared with those of the first that leaves any.
        rounds: After the warm-up.
        say: Called with a sentence at each step.
        after: Called after each round but the warm-up with what there is so far.
    """
    result = Measured()
    with contextlib.ExitStack() as stack:
        processes = _start(jobs, result, stack, say)
        for number in range(rounds + 1):
            for name, process in list(processes.items()):
                time.sleep(_SETTLE_S)
                start = time.perf_counter()
                try:
                    result.rounds[name].append(process())
                except EngineError as error:
                    _drop(name, error, result, say)
                    del processes[name]
                    continue
                turn = f"round {number} of {rounds}" if number else "warm-up"
                say(f"{turn}: {name}, {time.perf_counter() - start:.1f} s")
            _compare({name: jobs[name].mask for name in processes}, result)
            if number:
                after(result)
    return result


def _start(
    jobs: Mapping[str, Job], result: Measured, stack: contextlib.ExitStack, say: Say
) -> dict[str, Process]:
    processes = {}
    for name, job in jobs.items():
        say(f"loading {name}")
        try:
            processes[name] = process = stack.enter_context(Process(job))
        except Skip as why:
            say(f"{name}: skipped. {why}")
            result.skipped[name] = str(why)
            continue
        except EngineError as error:
            _drop(name, error, result, say)
            continue
        result.about[name] = process.about | {"load_s": process.load_s}
        result.rounds[name] = []
    return processes


def _drop(name: str, error: EngineError, result: Measured, say: Say) -> None:
    say(f"{name} failed: {error}")
    result.failed[name] = str(error)
    result.rounds.pop(name, None)
    result.relative_rms.pop(name, None)


def _compare(masks: Mapping[str, str], result: Measured) -> None:
    """Notes how far each mask of a round is from the reference's."""
    found = {name: np.load(path, mmap_mode="r") for name, path in masks.items() if path}
    if len(found) < 2:
        return
    if result.reference not in found:  # the first round, or the reference failed
        result.reference, result.relative_rms = next(iter(found)), {}
    expected = np.asarray(found.pop(result.reference), np.float64)
    scale = max(float(np.sqrt(np.mean(expected**2))), 1e-30)
    for name, mask in found.items():
        rms = float(np.sqrt(np.mean((mask - expected) ** 2))) / scale
        # NaN is the worst of all, and stays
        result.relative_rms[name] = float(np.maximum(rms, result.relative_rms.get(name, 0.0)))
