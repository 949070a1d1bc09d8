"""Runs cases one after another in one process, whose memory and processor time are limited.

    python tests/robustness/fuzz_worker.py WORK CORPUS SEED MEMORY_MIB CPU_S < numbers

It prints "ready" when everything is imported, and of every case two lines of JSON: what it is,
before it runs, and what came of it. A case that kills the process leaves the second one out, and
the one who started it (`fuzz.py`) knows.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from fuzz_audio import audio_case, name_case, songs_case
from fuzz_case import Case, Corpus, Maker
from fuzz_configs import config_case, value_case
from fuzz_corpus import open_corpus
from fuzz_judge import Traces, judge
from fuzz_models import checkpoint_case, onnx_case, plan_case, run_case, safetensors_case

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout


MAKERS: tuple[Maker, ...] = (
    *(audio_case, audio_case, audio_case, audio_case, audio_case, name_case),
    *(checkpoint_case, checkpoint_case, checkpoint_case, safetensors_case, safetensors_case),
    *(onnx_case, onnx_case, onnx_case, plan_case, plan_case),
    *(config_case, config_case, value_case, songs_case, run_case),
)
"""Case N is made by the entry N modulo their number, from the seed and N."""
_RUNNING = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile"),
    *("socket.__new__", "socket.connect", "pickle.find_class", "webbrowser.open"),
)
_WRITING = ("os.mkdir", "os.remove", "os.rmdir", "os.chmod")
"""Whose last value is an open folder that the path starts from, or -1."""
_TWO_PATHS = ("os.rename", "os.link", "os.symlink")
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Notes what Python does that no case may do; an audit hook stays to the process's end."""

    def __init__(self) -> None:
        self.allowed: Path | None = None
        """Folder that may be written to; None while nothing is watched."""
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, values: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event in _RUNNING and values[0] != "git":  # the version of a run's code
            self.seen.append(f"{event} {str(values)[:200]}")
        elif event == "open":
            path, _, flags = values
            if isinstance(flags, int) and flags & _WRITE_FLAGS:
                self._written(event, path)
        elif event == "os.truncate":
            self._written(event, values[0])
        elif event in _WRITING:
            self._written(event, values[0], values[-1])
        elif event in _TWO_PATHS:
            self._written(event, values[0])
            self._written(event, values[1])
        elif event == "ctypes.dlopen" and str(self.allowed.parent) in str(values[0]):
            self.seen.append(f"{event} {values[0]}")

    def _written(self, event: str, path: Any, folder: int = -1) -> None:
        if isinstance(path, int) or self.allowed is None:
            return
        above = os.getcwd() if folder < 0 else os.readlink(f"/proc/self/fd/{folder}")
        place = os.path.normpath(os.path.join(above, os.fsdecode(path)))
        if place != os.devnull and Path(place) != self.allowed:
            try:
                Path(place).relative_to(self.allowed)
            except ValueError:
                self.seen.append(f"{event} {place}")


def make_case(seed: int, number: int, corpus: Corpus, folder: Path) -> Case:
    """Writes a case; the same for the same seed and number."""
    maker = MAKERS[number % len(MAKERS)]
    depth, digits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    sys.setrecursionlimit(100_000)  # to write what readers must not fall over
    sys.set_int_max_str_digits(0)
    try:
        case = maker(Random(f"{seed}/{number}"), corpus, folder)
    finally:
        sys.setrecursionlimit(depth)
        sys.set_int_max_str_digits(digits)
    return Case(kind=case.kind, arguments=[_argument(text) for text in case.arguments])


def _argument(text: str) -> str:
    """As a shell can give it."""
    try:
        return os.fsdecode(os.fsencode(text))
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()


def main() -> None:
    """Reads numbers, runs cases."""
    work, corpus = Path(sys.argv[1]), open_corpus(Path(sys.argv[2]))
    seed, memory_mib, cpu_s = map(int, sys.argv[3:6])
    answers = os.fdopen(os.dup(1), "w")
    run = _prepared(work, memory_mib)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        number = int(line)
        folder = work / "cases" / str(number)
        folder.mkdir(parents=True)
        case = make_case(seed, number, corpus, folder)
        print(json.dumps({"case": number, **asdict(case)}), file=answers, flush=True)
        result = run(case, folder, cpu_s)
        print(json.dumps({"case": number, **result}), file=answers, flush=True)


def _prepared(work: Path, memory_mib: int) -> Callable[[Case, Path, int], dict[str, Any]]:
    """Imports what commands import, redirects stdout and stderr; what runs a case."""
    import torch
    import torch._dynamo
    import torch._inductor.config
    import torch.utils.tensorboard
    import tqdm.contrib.logging  # noqa: F401

    from bsmamba2.cli import COMMANDS, cli, main

    sys.dont_write_bytecode = True
    tempfile.gettempdir()  # tries once whether it can write there
    torch.set_num_threads(1)
    for name in COMMANDS:
        cli.get_command(None, name)  # type: ignore[arg-type]
    outputs = []
    for number, stream in ((1, "stdout"), (2, "stderr")):
        path = work / f"{stream}-{os.getpid()}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(handle, number)
        outputs.append(path)
        setattr(sys, stream, os.fdopen(number, "w", buffering=1, errors="backslashreplace"))
    watch = Watch()

    def run(case: Case, folder: Path, cpu_s: int) -> dict[str, Any]:
        for number in (1, 2):
            os.ftruncate(number, 0)
        (folder / "out").mkdir(exist_ok=True)
        before = _names(folder)
        os.chdir(folder)
        used = _cpu_s()
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + cpu_s, resource.RLIM_INFINITY))
        _limit_memory(memory_mib)
        memory = _peak_mib(reset=True)
        start = time.monotonic()
        watch.allowed, watch.seen = folder / "out", []
        try:
            main(case.arguments)
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 1
        watch.allowed = None
        _limit_memory(None)
        figures = {
            "wall_s": round(time.monotonic() - start, 3),
            "cpu_s": round(_cpu_s() - used, 3),
            "memory_mib": round(_peak_mib() - memory, 1),
        }
        os.chdir(work)
        sys.stdout.flush()
        sys.stderr.flush()
        printed, errors = (path.read_bytes().decode("utf-8", "replace") for path in outputs)
        after = _names(folder)
        strange = [f"file {name}" for name in after - before if not name.startswith("out/")]
        traces = Traces(
            arguments=case.arguments,
            code=code,
            printed=printed,
            errors=errors,
            files=sorted(name for name in after if name.startswith("out/")),
            forbidden=watch.seen + strange,
        )
        outcome, detail = judge(traces)
        shutil.rmtree(folder, ignore_errors=True)
        return {"outcome": outcome, "detail": detail[:2000], **figures}

    return run


def _names(folder: Path) -> set[str]:
    """Everything below a folder, and what lies beside it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} | {
        f"../{path.name}" for path in folder.parent.iterdir()
    }


def _limit_memory(more_mib: int | None) -> None:
    """Lets the process have so much more address space than it has; None ends that."""
    limit = resource.RLIM_INFINITY
    if more_mib is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (more_mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_mib(*, reset: bool = False) -> float:
    """The most memory since the last reset; with `reset`, what is used now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
