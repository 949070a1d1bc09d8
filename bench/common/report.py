"""Makes the head of every benchmark's report, and writes reports."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.common.machine import describe_machine, describe_versions, load_average
from bsmamba2.errors import BsmError
from bsmamba2.system.atomic import write_atomic

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""


def report_head(script: str, arguments: Sequence[str], version: int = 1) -> dict[str, Any]:
    """Returns the head of a benchmark's report: command, date, machine, versions, load.

    Args:
        script: `__file__` of the benchmark.
        arguments: Its command-line arguments; absolute paths are cut to their last part.
        version: Version of the report's format.
    """
    short = []
    for argument in arguments:
        option, equals, value = argument.rpartition("=")
        path = Path(value)
        short.append(option + equals + (path.name if path.is_absolute() else value))
    path = Path(script).resolve()
    return {
        "benchmark": path.stem,
        "format": version,
        "command": shlex.join(["python", path.relative_to(ROOT).as_posix(), *short]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "load_average": load_average(),
    }


def summary(values: Iterable[float]) -> dict[str, float]:
    """Returns the median and range: median, min, max."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes a report as JSON, whole or not at all."""
    write_atomic(path, json.dumps(report, indent=2) + "\n")


def replace_block(path: Path, begin: str, end: str, block: str) -> str:
    """Returns a file's text with a new block between two markers; BsmError if one is missing."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise BsmError(f"Cannot read {path}: {error.strerror or error}.") from error
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise BsmError(f"{path} has no place for the table: put '{begin}' and '{end}' into it.")
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"
