"""Makes one case, runs it in a process of its own with limits, and judges it.

A case depends only on the seed and its number. The case and its result are written as JSON; if a
case kills its process, the result is missing, which `fuzz.py` counts as a crash or a hang.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import soundfile
from fuzz_audio import (
    address_case,
    audio_case,
    joined_case,
    name_case,
    songs_case,
    suffix_case,
)
from fuzz_configs import config_case, value_case
from fuzz_corpus import Case, Corpus, Maker, open_corpus
from fuzz_models import checkpoint_case, onnx_case, plan_case, run_case, safetensors_case

MAKERS: tuple[Maker, ...] = (
    *(audio_case, audio_case, audio_case, audio_case, audio_case, name_case),
    *(checkpoint_case, checkpoint_case, checkpoint_case, safetensors_case, safetensors_case),
    *(onnx_case, onnx_case, onnx_case, plan_case, plan_case),
    *(config_case, config_case, value_case, songs_case, run_case),
    *(joined_case, joined_case, suffix_case, address_case),
)
"""Entry N % len(MAKERS) makes case N, from the seed and N."""
GOOD = ("success", "sentence", "usage")
"""Right outcomes; every other one is a bug."""
_LONGEST = 1500  # characters of a sentence
_UNEXPECTED = re.compile(r"[Uu]nexpected \w+:")
"""How a command reports an error that is not a BsmError."""
_REFUSED = "The system refused "
"""How it reports that memory or a thread was refused, within the limits of a case."""
_SENTENCE = re.compile(r"^(?:Error|Failed): (.*)$", re.MULTILINE)
_NOISE = re.compile(r"^(?:\S+\.py:\d+: |\[\S+ @ 0x|.*\[[WE]:onnxruntime)", re.MULTILINE)
"""Python's warnings, and messages that FFmpeg and ONNX Runtime print themselves. Those of libmpg123
about a damaged MP3 cannot be turned off."""
_RUNNING = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile"),
    *("socket.__new__", "socket.connect", "pickle.find_class", "webbrowser.open"),
)
_WRITING = ("os.mkdir", "os.remove", "os.rmdir", "os.chmod")
"""Audit events whose last value is the open folder that the path is relative to, or -1."""
_TWO_PATHS = ("os.rename", "os.link", "os.symlink")
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Records forbidden actions, by Python's audit events, while it is on."""

    def __init__(self, allowed: Path) -> None:
        """Starts recording; `allowed` is the folder that may be written to."""
        self.on, self.allowed = True, allowed
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, values: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in _RUNNING and values[0] != "git":  # a run records the version of its code
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
        if isinstance(path, int):
            return
        above = os.getcwd() if folder < 0 else os.readlink(f"/proc/self/fd/{folder}")
        place = os.path.normpath(os.path.join(above, os.fsdecode(path)))
        if place != os.devnull and not Path(place).is_relative_to(self.allowed):
            self.seen.append(f"{event} {place}")


def run_one(seed: int, number: int, corpus: Path, work: Path, memory_mib: int, cpu_s: int) -> None:
    """Makes, runs and judges a case, in a process of its own; writes `case` and `result`."""
    folder = work / "cases" / str(number)
    folder.mkdir(parents=True)
    case = make_case(seed, number, open_corpus(corpus), folder)
    said = {"case": number, "kind": case.kind, "arguments": case.arguments}
    (work / "case").write_text(json.dumps(said))
    os.environ["XDG_CACHE_HOME"] = str(work / "cache")
    sys.dont_write_bytecode = True
    tempfile.gettempdir()  # tries once whether it can write there
    (work / "result").write_text(json.dumps(_run(case, folder, memory_mib, cpu_s)))
    shutil.rmtree(folder, ignore_errors=True)


def make_case(seed: int, number: int, corpus: Corpus, folder: Path) -> Case:
    """Writes a case; the same for the same seed and number."""
    depth, digits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    sys.setrecursionlimit(100_000)  # to write what readers must withstand
    sys.set_int_max_str_digits(0)
    try:
        case = MAKERS[number % len(MAKERS)](Random(f"{seed}/{number}"), corpus, folder)
    finally:
        sys.setrecursionlimit(depth)
        sys.set_int_max_str_digits(digits)
    return replace(case, arguments=[_argument(text) for text in case.arguments])


def _argument(text: str) -> str:
    """The argument as a shell can pass it."""
    try:
        return os.fsdecode(os.fsencode(text))
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()


def _run(case: Case, folder: Path, memory_mib: int, cpu_s: int) -> dict[str, Any]:
    from bsmamba2.cli import main

    (folder / "out").mkdir(exist_ok=True)
    before = _names(folder)
    os.chdir(folder)
    memory, start, used = _memory_mib("VmHWM"), time.monotonic(), time.process_time()
    _limit(resource.RLIMIT_CPU, int(used) + 1 + cpu_s)
    _limit(resource.RLIMIT_AS, (int(_memory_mib("VmSize")) + memory_mib) << 20)
    watch = Watch(folder / "out")
    try:
        main(case.arguments)
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    watch.on = False
    _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
    figures = {
        "wall_s": round(time.monotonic() - start, 3),
        "cpu_s": round(time.process_time() - used, 3),
        "memory_mib": round(_memory_mib("VmHWM") - memory, 1),
    }
    sys.stdout.flush()
    sys.stderr.flush()
    printed, errors = (_said(number) for number in (1, 2))
    after = _names(folder)
    strange = [f"file {name}" for name in after - before if not name.startswith("out/")]
    outcome, detail = judge(case.arguments, code, printed, errors, after, watch.seen + strange)
    if outcome in GOOD:
        outcome, detail = judge_song(case, outcome, detail, errors, folder / "out")
    return {"outcome": outcome, "detail": detail[:2000], **figures}


def judge(
    arguments: list[str],
    code: int,
    printed: str,
    errors: str,
    files: set[str],
    forbidden: list[str],
) -> tuple[str, str]:
    """The outcome, one of GOOD or the name of a bug, and the evidence for it.

    A command may succeed or fail with one sentence; nothing else.

    Args:
        arguments: Arguments of the command.
        code: Its exit code.
        printed: Its stdout.
        errors: Its stderr.
        files: Files in its folder.
        forbidden: What else it did: files elsewhere, processes, sockets, libraries, calls.
    """
    sentences = _SENTENCE.findall(errors)
    if forbidden:
        return "forbidden", forbidden[0]
    if "Traceback" in errors:
        return "traceback", errors.strip().splitlines()[-1]
    for sentence in sentences:
        if _UNEXPECTED.search(sentence):
            return "unexpected", sentence
        if _REFUSED in sentence:
            return "memory", sentence
    if noise := _NOISE.search(errors):
        return "noise", errors[noise.start() :].splitlines()[0]
    if half := [name for name in files if ".partial-" in name]:
        return "half a file", half[0]
    if code == 0:
        return ("success", "") if not sentences else ("wrong code", sentences[0])
    if code == 2 and errors.startswith("Usage: "):
        return "usage", errors.strip().splitlines()[-1]
    if code == 1 and arguments[0] == "parity" and "FAILED" in printed:
        return "success", ""  # the engines differ, which is a valid answer
    if code not in (1, 2) or not sentences:  # 2: an invalid option
        return "no sentence", f"exit code {code}: {errors[-300:]}"
    for sentence in sentences:
        if len(sentence) > _LONGEST or not sentence.rstrip().endswith((".", ":", "?")):
            return "no sentence", sentence[:_LONGEST]
    return "sentence", sentences[0]


def judge_song(case: Case, outcome: str, detail: str, errors: str, out: Path) -> tuple[str, str]:
    """The outcome of a case that `judge` finds right, if more is known about its song."""
    if case.intact:
        if outcome != "success":
            return "refused", detail
        if errors:
            return "noise", errors.splitlines()[0]
    if case.seconds is not None and outcome == "success":
        for path in (path for path in sorted(out.rglob("*")) if path.is_file()):
            found = soundfile.info(path).duration
            if abs(found - case.seconds) > case.seconds / 4:
                return "wrong length", f"{path.name}: {found:.3f} of {case.seconds:.3f} s"
    return outcome, detail


def _names(folder: Path) -> set[str]:
    """Returns the names of everything below a folder, and beside it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} | {
        f"../{path.name}" for path in folder.parent.iterdir()
    }


def _said(number: int) -> str:
    """Returns what this process wrote to a file descriptor, which is a file."""
    with open(os.dup(number), "rb") as file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, resource.RLIM_INFINITY))


def _memory_mib(name: str) -> float:
    """VmSize, the address space; VmHWM, the most memory so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024
