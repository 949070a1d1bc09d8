"""ncu over the scan's kernels at the model's own sizes: what bounds them."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.gpu.part import Part
from bench.gpu.sanitizer import SCRIPT, driver_options

_TIMEOUT_S = 400


def profile(part: Part) -> None:
    """Every section of ncu for each kernel of both paths, in float16."""
    if not part.job.ncu:
        raise RuntimeError("ncu is not installed here")
    log = Path(f"{part.job.result}.csv")
    sizes = part.sizes
    command = [part.job.ncu, "--set", "full", "--csv", "--page", "details"]
    command += ["--clock-control", "none", "--log-file", str(log)]  # clocks as in the other parts
    command += [sys.executable, str(SCRIPT), part.job.library, *driver_options(part.job), "--"]
    command += [
        f"{N}:{L}:{sizes.n_heads}:{sizes.headdim}:{sizes.d_state}:float16"
        for N, L in part.paths.values()
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    text = log.read_text(errors="replace") if log.exists() else ""
    part.values["kernels"] = kernels(text.splitlines())
    for row in part.values["kernels"]:
        part.say(f"{row['kernel']}: {row['metrics'].get('Duration')}")
    if done.returncode or not part.values["kernels"]:
        said = (text + done.stdout + done.stderr).strip()[-1500:]
        raise RuntimeError(f"ncu ended with {done.returncode}: {said}")


def kernels(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Metric name -> value with unit, for each kernel of ncu's table; the first of a name counts.

    Args:
        lines: The CSV of the page "details", between messages that begin with ==.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(line for line in lines if line.startswith('"')):
        kernel = found.setdefault(
            row["ID"],
            {
                "kernel": row["Kernel Name"],
                "grid": row["Grid Size"],
                "block": row["Block Size"],
                "metrics": {},
            },
        )
        if row["Metric Name"]:  # else a rule's advice
            value = f"{row['Metric Value']} {row['Metric Unit']}".strip()
            kernel["metrics"].setdefault(row["Metric Name"], value)
    return list(found.values())
