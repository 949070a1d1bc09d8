"""Processes that take turns: A B C, A B C, ... with one of them computing at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.errors import EngineError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SETTLE_S = 0.2  # a pool's threads go on spinning for a while after their last work


@dataclass(frozen=True)
class Job:
    """What a process does in each turn."""

    task: str
    """MODULE:FUNCTION, as in `worker.py`."""
    arguments: dict[str, Any]
    """Arguments of the function; `mask` is the file for the mask of each turn (.npy)."""
    python: str | Path = sys.executable


class Process:
    """A job in a process of its own, which is ready once this object is made.

    The caller should be small: the peak memory that a system reports for a process can include the
    size of the process that it was forked from.
    """

    def __init__(self, job: Job) -> None:
        """Starts the process and waits until it is ready; raises EngineError if it fails."""
        threads = job.arguments.get("threads")
        worker = str(Path(__file__).with_name("worker.py"))
        self._folder = f"{Path(job.arguments.get('file', '.')).parent}{os.sep}"
        self._process = subprocess.Popen(
            [str(job.python), worker, job.task, json.dumps(job.arguments, default=str)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (dict.fromkeys(_THREAD_VARIABLES, str(threads)) if threads else {}),
        )
        try:
            self.about = self._reply()
        except BaseException:
            self.close()
            raise

    def turn(self) -> dict[str, Any]:
        """Runs the job once; raises EngineError if it fails."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # the missing reply shows it
            print("go", file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line:
            reply: dict[str, Any] = json.loads(line)
        elif (code := self._process.wait()) == -signal.SIGKILL:
            reply = {"error": "Its process was killed, probably because memory ran out."}
        else:
            reply = {"error": f"Its process ended with exit status {code}: see the messages above."}
        if "error" in reply:
            raise EngineError(reply["error"].replace(self._folder, ""))
        return reply

    def close(self) -> None:
        """Ends the process."""
        self._process.__exit__(None, None, None)  # closes the pipes, so that it ends, and waits


@dataclass
class Measured:
    """Results of the rounds; a job that failed is only in `failed`."""

    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Name -> the process's replies, the warm-up first."""
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> the process's description of itself, with `load_s`."""
    reference: str | None = None
    """The engine whose masks the others were compared with."""
    relative_rms: dict[str, float] = field(default_factory=dict)
    """Name -> distance from the reference in the worst round."""
    failed: dict[str, str] = field(default_factory=dict)
    """Name -> reason."""

    def drop(self, name: str, error: EngineError) -> None:
        """Records that a job failed."""
        say(f"{name} failed: {error}")
        self.failed[name] = str(error)
        self.rounds.pop(name, None)
        self.relative_rms.pop(name, None)

    def compare(self, masks: Mapping[str, Path]) -> None:
        """Records how far each mask of a round is from that of the reference, the first one."""
        found = {name: np.load(path, mmap_mode="r") for name, path in masks.items()}
        if len(found) < 2:
            return
        if self.reference not in found:  # the first round, or the reference failed
            self.reference, self.relative_rms = next(iter(found)), {}
        expected = np.asarray(found.pop(self.reference), np.float64)
        scale = max(float(np.sqrt(np.mean(expected**2))), 1e-30)
        for name, mask in found.items():
            rms = float(np.sqrt(np.mean((mask - expected) ** 2))) / scale
            # NaN counts as the worst of all, and stays
            self.relative_rms[name] = float(np.maximum(rms, self.relative_rms.get(name, 0.0)))


def take_turns(
    jobs: Mapping[str, Job], rounds: int, after: Callable[[Measured], None] = lambda _: None
) -> Measured:
    """Lets processes compute in turn, once to warm up and then for some rounds.

    Args:
        jobs: Name -> job. Masks are compared with those of the first job that writes any.
        rounds: Number of rounds after the warm-up.
        after: Called with the results so far after each round but the warm-up.
    """
    result, processes = Measured(), {}
    with contextlib.ExitStack() as stack:
        for name, job in jobs.items():
            say(f"loading {name}")
            try:
                processes[name] = Process(job)
            except EngineError as error:
                result.drop(name, error)
                continue
            stack.callback(processes[name].close)
            result.about[name], result.rounds[name] = processes[name].about, []
        for number in range(rounds + 1):
            for name, process in list(processes.items()):
                time.sleep(_SETTLE_S)
                start = time.perf_counter()
                try:
                    result.rounds[name].append(process.turn())
                except EngineError as error:
                    result.drop(name, error)
                    del processes[name]
                    continue
                turn = f"round {number} of {rounds}" if number else "warm-up"
                say(f"{turn}: {name}, {time.perf_counter() - start:.1f} s")
            masks = {name: jobs[name].arguments.get("mask") for name in processes}
            result.compare({name: path for name, path in masks.items() if path})
            if number:
                after(result)
    return result


def say(sentence: str) -> None:
    """Reports progress on stderr."""
    print(sentence, file=sys.stderr, flush=True)
