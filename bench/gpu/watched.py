"""Single scans under compute-sanitizer and ncu: what they find, and what bounds the kernels."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from bench.common.scans import head_sizes
from bench.gpu.part import Part, Skipped
from bench.gpu.report import text
from bench.gpu.scan import make_case
from bsmamba2.formats.operator import INPUTS
from bsmamba2.plugins.cuda_library import DTYPES, ScanArrays, ScanLibrary, ScanSizes

WORKER = Path(__file__).with_name("worker.py")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards?)")
_FULL = ((1, 1), (2, 63), (3, 64), (1, 65), (2, 130))
_ODD = ((2, 2), (3, 62), (1, 129))
_METRICS = (
    "Duration",
    "DRAM Throughput",
    "Compute (SM) Throughput",
    "Registers Per Thread",
    "Achieved Occupancy",
)
Case = tuple[int, int, int, int, int, str]


def cases(part: Part) -> None:
    """Scans each of the job's cases once.

    Inputs are made on the CPU, so that no other kernel runs. Every array is an allocation of its
    own, of its exact size (see `_watch`), so that an access one element too far is found.

    Raises:
        RuntimeError: An output was not written everywhere.
    """
    library = ScanLibrary(part.job.library)
    for N, L, n_heads, headdim, d_state, dtype in part.job.cases:
        sizes = head_sizes(n_heads, headdim, d_state)
        case = make_case(torch.device("cpu"), N, L, sizes, getattr(torch, dtype))
        call = ScanSizes(
            n_sequences=N, length=L, n_heads=n_heads, headdim=headdim, d_state=d_state, dtype=dtype
        )
        inputs = [tensor.contiguous().to(part.device) for tensor in case.tensors]
        needed = library.workspace_bytes(call)
        workspace = torch.empty(needed, dtype=torch.uint8, device=part.device)
        short = part.job.plant and not part.job.rehearsal  # on a CPU it would break the heap
        count = N * L * 2 * sizes.d_inner // (2 if short else 1)
        y = torch.full((count,), torch.nan, dtype=case.zxbcdt.dtype).to(part.device)
        addresses = [tensor.data_ptr() for tensor in (*inputs, y)]
        library.enqueue(
            call,
            ScanArrays(**dict(zip((*INPUTS, "y"), addresses, strict=True))),
            workspace=workspace.data_ptr(),
            workspace_bytes=needed,
        )
        if y.cpu().isnan().any() and not part.job.plant:
            raise RuntimeError(f"{N}, {L}, {n_heads} heads, {dtype}: not written everywhere")


def sanitizer(part: Part) -> None:
    """Runs all tools; a tool that overlooks the planted error counts as an error, too."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise (Skipped if part.job.rehearsal else RuntimeError)(
            "compute-sanitizer is not installed here"
        )
    rows: list[dict[str, Any]] = []
    part.values["rows"] = rows
    runs = [("memcheck", True), *((tool, False) for tool in TOOLS[: 2 if part.job.quick else 4])]
    for tool, plant in runs:
        start_s = time.perf_counter()
        # Errors of API calls are not the kernel's: PyTorch asks CUDA for what may not be there.
        command = [program, "--tool", tool, "--error-exitcode", "86", "--report-api-errors", "no"]
        small = _cases(part)
        done = _watch(part, command, small[:1] if plant else small, plant=plant)
        output = done.stdout + done.stderr
        errors = max(map(int, _SUMMARY.findall(output)), default=None)
        ok = bool(errors) if plant else done.returncode == 0 and errors == 0
        row = {"tool": tool, "planted": plant, "ok": ok, "errors": errors}
        rows.append(row | {"seconds": round(time.perf_counter() - start_s, 1)})
        part.say(text(rows[-1]))
        if not ok:
            rows[-1]["output"] = output[-4000:]
            part.say(output[-1000:])
        part.save()
    if not all(row["ok"] for row in rows):
        raise RuntimeError("a tool reports errors, or does not work here: see its output")


def _cases(part: Part) -> list[Case]:
    if part.job.rehearsal:
        return [(1, 2, 2, 32, 32, "float32")]
    dtypes = ("float16",) if part.job.quick else tuple(DTYPES)
    return [
        (N, L, *sizes, dtype)
        for dtype in dtypes
        for sizes, shapes in (((16, 64, 128), _FULL), ((3, 32, 64), _ODD))
        for N, L in shapes
    ]


def profile(part: Part) -> None:
    """Runs ncu, with all its sections, on each kernel of both paths, in float16."""
    program = shutil.which("ncu")
    if program is None:
        raise (Skipped if part.job.rehearsal else RuntimeError)("ncu is not installed here")
    log = Path(f"{part.job.result}.csv")
    sizes = (part.sizes.n_heads, part.sizes.headdim, part.sizes.d_state)
    command = [program, "--set", "full", "--csv", "--page", "details"]
    command += ["--clock-control", "none", "--log-file", str(log)]  # clocks as in the other parts
    done = _watch(part, command, [(N, L, *sizes, "float16") for N, L in part.paths.values()])
    text = log.read_text(errors="replace") if log.exists() else ""
    part.values["rows"] = rows = ncu_kernels(text.splitlines())
    for row in rows:
        part.say(f"{row['kernel']}: {row['Duration']}")
    if done.returncode or not rows:
        said = (text + done.stdout + done.stderr).strip()[-1500:]
        raise RuntimeError(f"ncu ended with {done.returncode}: {said}")


def ncu_kernels(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Metric name -> value with unit, for each kernel of ncu's table; the first of a name counts.

    Args:
        lines: The CSV of the page "details", between messages that begin with ==.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(line for line in lines if line.startswith('"')):
        kernel = found.setdefault(
            row["ID"],
            {"kernel": row["Kernel Name"], "grid": row["Grid Size"], "block": row["Block Size"]}
            | dict.fromkeys(_METRICS)
            | {"metrics": {}},
        )
        if name := row["Metric Name"]:  # otherwise a rule's advice
            value = f"{row['Metric Value']} {row['Metric Unit']}".strip()
            kernel["metrics"].setdefault(name, value)
            if name in _METRICS and kernel[name] is None:
                kernel[name] = value
    return list(found.values())


def _watch(
    part: Part, command: Sequence[str], scans: Sequence[Case], *, plant: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a tool on the part `cases`, in which each tensor is an allocation of its own."""
    job = replace(
        part.job, part="cases", result=f"{part.job.result}.cases", cases=tuple(scans), plant=plant
    )
    return subprocess.run(
        [*command, sys.executable, str(WORKER), json.dumps(asdict(job))],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )
