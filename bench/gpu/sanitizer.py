"""compute-sanitizer over small cases of the scan, and over one planted error."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu.part import Job, Part

SCRIPT = Path(__file__).with_name("gpu_sanitized.py")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_TIMEOUT_S = 240
_EXIT_CODE = 86  # of the tool when it found something
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards?)")
_FULL = ("16:64:128", ("1:1", "2:63", "3:64", "1:65", "2:130"))
_ODD = ("3:32:64", ("2:2", "3:62", "1:129"))
_DTYPES = ("float16", "bfloat16", "float32")


def sanitizer(part: Part) -> None:
    """Runs all tools; a tool that overlooks the planted error is an error, too."""
    rows: list[dict[str, Any]] = []
    part.values["rows"] = rows
    cases = _cases(part)
    if part.job.sanitizer:
        planted = _run(part, "memcheck", cases[:1], "--plant")
        rows.append(planted | {"what": "planted", "ok": bool(planted["errors"])})
    elif not part.job.rehearsal:
        raise RuntimeError("compute-sanitizer is not installed here")
    for tool in TOOLS[:2] if part.job.quick else TOOLS:
        row = _run(part, tool, cases)
        rows.append(row | {"what": "scan", "ok": row["exit_status"] == 0 and row["errors"] == 0})
        part.save()
    for row in rows:
        if row["ok"]:
            del row["output"]
        part.say(f"{row['what']} {row['tool']}: {'ok' if row['ok'] else 'NOT OK'}")
    if not all(row["ok"] for row in rows):
        raise RuntimeError("a tool reports errors, or does not work here: see its output")


def _cases(part: Part) -> list[str]:
    if part.job.rehearsal:
        return ["1:2:2:32:32:float32"]
    dtypes = _DTYPES[:1] if part.job.quick else _DTYPES
    return [
        f"{shape}:{sizes}:{dtype}"
        for dtype in dtypes
        for sizes, shapes in (_FULL, _ODD)
        for shape in shapes
    ]


def driver_options(job: Job) -> list[str]:
    """Where the cases' arrays lie: on the GPU, in a rehearsal in host memory."""
    if job.rehearsal and not job.driver:
        return []
    return ["--driver", job.driver or "libcuda.so.1"]


def _run(part: Part, tool: str, cases: Sequence[str], *options: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), part.job.library, *options]
    command += [*driver_options(part.job), "--", *cases]
    if part.job.sanitizer:
        watch = [part.job.sanitizer, "--tool", tool, "--error-exitcode", str(_EXIT_CODE)]
        command = [*watch, *command]
    start_s = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
        output, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        parts = (error.stdout, error.stderr)
        output = "".join(p.decode(errors="replace") for p in parts if isinstance(p, bytes))
        status = None
    found = [int(number) for number in _SUMMARY.findall(output)]
    errors = max(found) if found else None if part.job.sanitizer else 0
    return {
        "tool": tool if part.job.sanitizer else "none (rehearsal)",
        "cases": len(cases),
        "errors": errors,
        "exit_status": status,
        "seconds": time.perf_counter() - start_s,
        "output": output[-4000:],
    }
