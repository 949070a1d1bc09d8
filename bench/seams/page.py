"""The page of the seams and its plots, from their JSON alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.common.report import replace_block
from bench.common.tables import markdown
from bench.seams.tests import FIGURES
from bsmamba2.evaluation.charts import WIDTH, Plot, standalone
from bsmamba2.runtime.separation.chunking import FADE_S
from bsmamba2.runtime.separation.separator import DEFAULT_OVERLAP_S
from bsmamba2.system.atomic import write_atomic

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
_GRAIN_S = 0.02
_DISTANCES_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_MUSIC = {"practice": "practice songs", "excerpt": "real music"}


def draw(report: dict[str, Any], folder: Path) -> None:
    """Writes the tables of SEAMS.md between its marks, and two plots beside it."""
    write_atomic(folder / "seams-edges.svg", standalone(plot_edges(report)))
    write_atomic(folder / "seams-found.svg", standalone(plot_found(report)))
    page = folder / "SEAMS.md"
    write_atomic(page, replace_block(page, _BEGIN, _END, tables(report)))


def plot_edges(report: dict[str, Any]) -> str:
    """The departure from the whole song's estimate against the distance from the edge."""
    plot = Plot(x=(math.log10(0.018), math.log10(4.2)), y=(-50, 0))
    plot.y_axis("departure from the whole, dB")
    ticks = [(math.log10(value), f"{value:g}") for value in _DISTANCES_S]
    plot.x_axis(ticks, "distance from the chunk's edge, s (mean of a third of an octave)")
    context = plot.px(math.log10(DEFAULT_OVERLAP_S / 2))
    plot.line(context, plot.py(-50), context, plot.py(0), "line own")
    plot.text(context + 6, plot.py(-47), "default context", "faint")
    kinds = [
        (f"{_MUSIC[music]}, chunks of {chunk_s} s", curves["departure"])
        for music, lengths in report["edges"].items()
        for chunk_s, curves in lengths.items()
    ]
    for place, (name, curve) in enumerate(kinds):
        points = [(math.log10(at), value) for at, value in _thirds(curve)]
        plot.path(points, f"line m{place}")
        _legend(plot, place, name)
    return plot.svg("Error at the edge of a chunk")


def plot_found(report: dict[str, Any]) -> str:
    """How well seams of 4 s chunks are found against the overlap."""
    rows = _chunk_rows(report, "practice", 4)
    overlaps = sorted({row["overlap_s"] for row in rows})
    plot = Plot(x=(-0.5, len(overlaps) - 0.5), y=(0.4, 1.02))
    plot.y_axis("seams told from other places (0.5: not)")
    plot.x_axis(
        [(place, f"{overlap:g} s") for place, overlap in enumerate(overlaps)],
        "overlap of chunks of 4 s, practice songs, voice",
    )
    lines = [("click", 0.0), ("flux", 0.0), ("level", 0.0), ("click", FADE_S), ("flux", FADE_S)]
    for place, (figure, fade_s) in enumerate(lines):
        how = f"faded over {1000 * fade_s:g} ms" if fade_s else "cut hard"
        points = [
            (float(overlaps.index(row["overlap_s"])), row[figure]["auc"])
            for row in rows
            if row["fade_s"] == fade_s
        ]
        plot.path(points, f"line m{place}")
        for x, auc in points:
            plot.dot(x, auc, f"m{place}", f"{figure}, {how}: {auc:.2f}")
        _legend(plot, place, f"{figure}, {how}")
    return plot.svg("How well seams are found")


def _legend(plot: Plot, place: int, name: str) -> None:
    x, y = WIDTH - 250, 30 + 18 * place
    plot.line(x, y - 4, x + 22, y - 4, f"line m{place}")
    plot.text(x + 30, y, name)


def _thirds(curve: list[float]) -> list[tuple[float, float]]:
    """(distance in s, dB) of a curve's mean power over thirds of octaves."""
    points, start = [], 0
    while start < len(curve):
        stop = max(start + 1, round((start + 0.5) * 2 ** (1 / 3) + 0.5))
        part = [10 ** (value / 10) for value in curve[start:stop]]
        middle = (start + min(stop, len(curve))) / 2 * _GRAIN_S
        points.append((max(middle, _GRAIN_S), 10 * math.log10(sum(part) / len(part))))
        start = stop
    return points


def tables(report: dict[str, Any]) -> str:
    """The measured part of the page."""
    return "\n\n".join([_edge_table(report), _cost_table(report), _seam_table(report)])


def _edge_table(report: dict[str, Any]) -> str:
    head = ["departure from the whole, dB, at", *(f"{value:g} s" for value in _DISTANCES_S)]
    rows = []
    for music, lengths in report["edges"].items():
        for chunk_s, curves in lengths.items():
            curve, cells = curves["departure"], []
            for distance in _DISTANCES_S:
                grain = round(distance / _GRAIN_S) - 1
                cells.append(f"{curve[grain]:.1f}" if grain < len(curve) else "")
            edges = curves["edges"]
            rows.append([f"{_MUSIC[music]}, chunks of {chunk_s} s, {edges} edges", *cells])
    return "\n".join(markdown(head, rows))


def _cost_table(report: dict[str, Any]) -> str:
    head = [
        "music",
        "chunk",
        "overlap",
        "chunks a minute",
        "uSDR",
        "to the whole's",
        "SDR to whole",
    ]
    rows = []
    for music, found in report["overlaps"].items():
        for row in found:
            error = row["to_whole_error"]
            difference = f"{row['to_whole_usdr']:+.3f}" + (f" ± {error:.3f}" if error else "")
            rows.append(
                [
                    _MUSIC[music],
                    f"{row['chunk_s']:g} s",
                    f"{row['overlap_s']:g} s",
                    f"{row['chunks_per_minute']:.1f}",
                    f"{row['usdr']:.3f}",
                    difference,
                    f"{row['sdr_to_whole']:.1f}",
                ]
            )
    return "\n".join(markdown(head, rows))


def _seam_table(report: dict[str, Any]) -> str:
    head = ["music", "chunk", "what", "stem", "seams", *FIGURES]
    rows = []
    for music, found in report["seams"].items():
        wholes = {_place(row): row for row in found if row["kind"] == "whole"}
        for row in found:
            what = _what(row)
            if what is None or len(row) < 2 * len(FIGURES):
                continue
            whole = wholes[_place(row)]
            cells = [_cell(row[name], whole[name]) for name in FIGURES]
            about = [_MUSIC[music], f"{row['chunk_s']:g} s", what, row["stem"]]
            rows.append([*about, f"{row['level']['seams']}", *cells])
    return "\n".join(markdown(head, rows))


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    """Rows of the same places in the same stem."""
    return row["chunk_s"], row["overlap_s"], row["stem"]


def _what(row: dict[str, Any]) -> str | None:
    """A row's name; None for one that the page leaves to the JSON."""
    overlap_s = row["overlap_s"]
    if row["kind"] == "whole":
        return None
    if row["kind"] == "step":
        return f"a step of {row['step_db']:g} dB" if overlap_s == DEFAULT_OVERLAP_S else None
    fade_s = row["fade_s"]
    if fade_s not in (0, FADE_S):
        return None
    return f"overlap {overlap_s:g} s" + (", faded" if fade_s else ", cut hard")


def _cell(verdict: dict[str, float], whole: dict[str, float]) -> str:
    """A star for a p below 0.001, which chance seldom gives in a table of this size."""
    star = "\\*" if verdict["p_paired"] < 1e-3 else ""
    return f"{verdict['auc']:.2f}{star} ({whole['auc']:.2f})"


def _chunk_rows(report: dict[str, Any], music: str, chunk_s: int) -> list[dict[str, Any]]:
    return [
        row
        for row in report["seams"][music]
        if row["kind"] == "chunks" and row["chunk_s"] == chunk_s and row["stem"] == "vocals"
    ]
