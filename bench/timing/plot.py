"""The report as a page of plots: seconds per chunk of every row, and how the cost grows."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.common.tables import sig
from bench.timing.tables import LABELS, growth_text, lines, rows_of
from bsmamba2.evaluation.charts import Plot, round_ticks, tick_label
from bsmamba2.evaluation.page import page, section
from bsmamba2.system.atomic import write_atomic

_WORDS = {
    "length": ("Cost over the length of a song", "length of the song in chunks"),
    "batch": ("Cost over the size of a batch", "chunks in a batch"),
}


def write_plot(path: Path, report: Mapping[str, Any]) -> None:
    """Writes the page, whole or not at all; raises BsmError if it cannot be written."""
    title = f"Latency of {report['model']['weights']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(section(*figure) for figure in plots(report)),
        section("All figures", "", f"<pre>{html.escape(chr(10).join(lines(report)))}</pre>"),
    ]
    write_atomic(path, page(title, "\n".join(parts)))


def plots(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(title, note, SVG element) of each plot that has figures."""
    found = []
    if rows_of(report):
        title = f"Seconds of computing for {report['chunk']['seconds']:g} s of audio"
        note = "Dots are medians; lines go from the fastest to the slowest round."
        found.append((title, note, plot_rows(report, title)))
    for name, growth in report["growth"].items():
        title, below = _WORDS[name]
        note = growth_text(report, name)
        found.append((f"{title}, {growth['engine']['file']}", note, plot_growth(growth, below)))
    return found


def plot_rows(report: Mapping[str, Any], title: str) -> str:
    """A line for each engine and peer on a logarithmic axis of seconds; the floor dashed."""
    rows = rows_of(report)
    floor = report["floor"].get("float32", {}).get("floor_s")
    values = [row["ms_per_chunk"][key] / 1000 for row in rows.values() for key in ("min", "max")]
    low, high = min([*values, floor or values[0]]), max(values)
    x = (math.log10(low) - 0.08, math.log10(high) + 0.22)  # room for a figure at the right
    plot = Plot(x=x, y=(-0.6, len(rows) - 0.4), height=64 + 26 * len(rows), left=220)
    ticks = [(math.log10(t), tick_label(t)) for t in log_ticks(10 ** x[0], 10 ** x[1])]
    words = "seconds, logarithmic" + (f"; dashed: float32 floor, {sig(floor)} s" if floor else "")
    plot.x_axis(ticks, words)
    if floor:
        plot.path([(math.log10(floor), y) for y in plot.y], "line own")
    for y, (name, row) in zip(reversed(range(len(rows))), rows.items(), strict=True):
        at = {key: math.log10(value / 1000) for key, value in row["ms_per_chunk"].items()}
        label, figure = LABELS.get(name, name), f"{sig(row['ms_per_chunk']['median'] / 1000)} s"
        plot.text(plot.left - 8, plot.py(y) + 4, label, "end")
        plot.line(plot.px(at["min"]), plot.py(y), plot.px(at["max"]), plot.py(y), "span")
        plot.dot(at["median"], y, "m0" if name in report["engines"] else "m1", f"{label}\n{figure}")
        plot.text(plot.px(at["max"]) + 10, plot.py(y) + 4, figure, "faint")
    return plot.svg(title)


def plot_growth(growth: Mapping[str, Any], below: str) -> str:
    """Points with their ranges, and the line through them."""
    points, line = growth["points"], growth["fit"]
    most = max(point["chunks"] for point in points)
    plot = Plot(x=(0, most * 1.06), y=(0, max(point["max"] for point in points) * 1.1))
    plot.y_axis("seconds")
    plot.x_axis([(t, tick_label(t)) for t in round_ticks(0, most, about=8)], below)
    if line:
        ends = [(x, max(0.0, line["start_s"] + x * line["chunk_s"])) for x in (0, most)]
        plot.path(ends, "line own")
    for point in points:
        x = plot.px(point["chunks"])
        plot.line(x, plot.py(point["min"]), x, plot.py(point["max"]), "span")
        said = f"{point['chunks']} chunks: {sig(point['seconds'])} s, "
        said += f"peak memory {point['peak_memory_mib']:.0f} MiB"
        plot.dot(point["chunks"], point["seconds"], "m0", said)
    return plot.svg(below)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two positive values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]
