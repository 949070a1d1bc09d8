"""What a command may do with hostile input: succeed, or say one sentence; nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass

GOOD = ("success", "sentence", "usage")
"""Outcomes that are right; every other one is a bug."""
_LONGEST = 1500  # letters of a sentence
_UNEXPECTED = re.compile(r"[Uu]nexpected \w+:")
"""How a command tells of an error that is no BsmError."""
_SENTENCE = re.compile(r"^(?:Error|Failed): (.*)$", re.MULTILINE)
_NOISE = re.compile(r"^(?:\S+\.py:\d+: |\[\S+ @ 0x|.*\[[WE]:onnxruntime)", re.MULTILINE)
"""Python's warnings, and what FFmpeg and ONNX Runtime print by themselves. What libmpg123 says of a
damaged MP3 cannot be turned off."""


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What a command left."""

    arguments: list[str]
    code: int
    """Its exit code."""
    printed: str
    """On stdout."""
    errors: str
    """On stderr."""
    files: list[str]
    """Below the folder `out`."""
    forbidden: list[str]
    """What it did besides: files elsewhere, processes, sockets, libraries, calls."""


def judge(traces: Traces) -> tuple[str, str]:
    """An outcome, one of GOOD or the name of a bug, and what shows it."""
    sentences = _SENTENCE.findall(traces.errors)
    if traces.forbidden:
        return "forbidden", traces.forbidden[0]
    if "Traceback" in traces.errors:
        return "traceback", traces.errors.strip().splitlines()[-1]
    for sentence in sentences:
        if _UNEXPECTED.search(sentence):
            return "unexpected", sentence
    if noise := _NOISE.search(traces.errors):
        return "noise", traces.errors[noise.start() :].splitlines()[0]
    if half := [name for name in traces.files if ".partial-" in name]:
        return "half a file", half[0]
    if traces.code == 0:
        return ("success", "") if not sentences else ("wrong code", sentences[0])
    if traces.code == 2 and traces.errors.startswith("Usage: "):
        return "usage", traces.errors.strip().splitlines()[-1]
    if traces.code == 1 and traces.arguments[0] == "parity" and "FAILED" in traces.printed:
        return "success", ""  # the engines differ, which is its answer
    if traces.code != 1 or not sentences:
        return "no sentence", f"exit code {traces.code}: {traces.errors[-300:]}"
    for sentence in sentences:
        if len(sentence) > _LONGEST or not sentence.rstrip().endswith((".", ":", "?")):
            return "no sentence", sentence[:_LONGEST]
    return "sentence", sentences[0]
