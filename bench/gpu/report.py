"""The report of `measure.py` as text: everything that a part saved, lists of rows as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.common.tables import aligned, median_range, sig

_LONG = ("logged", "metrics", "output", "ptxas", "reason", "seconds", "status")
"""Keys that are shown at the head of a part, or only in the JSON."""
_WIDTH = 60


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report's figures, one block per part."""
    if report["rehearsal"]:
        yield "REHEARSAL on a CPU: every figure below is meaningless."
    yield f"{report['command']}, {report['date']}"
    for name, part in report["parts"].items():
        yield ""
        yield f"== {name}: {part['status']}, {part['seconds']:.0f} s"
        if "reason" in part:
            yield f"   {part['reason']}"
        yield from (f"   warning: {line}" for line in part.get("logged", ()))
        for key, value in part.items():
            if key in _LONG:
                continue
            if isinstance(value, list):
                yield f"   {key}:"
                yield from (f"   {line}" for line in _table(value))
            else:
                yield f"   {key}: {text(value)}"


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row if name not in _LONG))
    if names:
        yield from aligned(
            [names, *([text(row.get(name, ""))[:_WIDTH] for name in names] for row in rows)]
        )


def text(value: Any) -> str:
    """A figure, or names with their figures."""
    if isinstance(value, Mapping):
        if value.keys() == {"median", "min", "max"}:
            return median_range(value)
        return ", ".join(f"{name} {text(each)}" for name, each in value.items())
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-2 else sig(value)
    return "-" if value is None else str(value)
