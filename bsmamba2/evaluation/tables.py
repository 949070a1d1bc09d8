"""The evaluation as plain text, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bsmamba2.evaluation.onsets import FLOOR_DBFS
from bsmamba2.evaluation.results import Leakage, StemScores, TrackResult
from bsmamba2.evaluation.summary import (
    UNEVEN,
    Evaluation,
    LeakageSummary,
    OnsetBin,
    StemSummary,
    bin_onsets,
    summarise_leakage,
    summarise_stem,
)

_TRACK_WIDTH = 34


def number(value: float, digits: int = 2) -> str:
    """A figure of a table: '-' where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def duration_range(part: OnsetBin) -> str:
    """The label of a bin of onsets."""
    if math.isinf(part.to_s):
        return f"{part.from_s:g} s and more"
    return f"{part.from_s:g} to {part.to_s:g} s"


def text_tables(evaluation: Evaluation) -> str:
    """All that was found: a table of tracks for each model, then what was asked for beside."""
    return "\n".join(_lines(evaluation))


def _lines(evaluation: Evaluation) -> Iterator[str]:
    stems = evaluation.stems
    for results in evaluation.models:
        name = results.model.name + ("" if results.model.trained else " (untrained)")
        tracks = "1 track" if len(results.tracks) == 1 else f"{len(results.tracks)} tracks"
        yield f"{name} on {evaluation.data}, {evaluation.split}: {tracks}"
        if results.tracks:
            yield ""
            yield from _track_table(results.tracks, stems)
        yield ""
    if evaluation.lengths_s and stems:
        yield f"{stems[0]} by length of the input, mean uSDR (dB)"
        yield ""
        yield from _length_table(evaluation)
        yield ""
    if evaluation.by_onset and stems:
        yield f"{stems[0]} by duration of its onsets, SDR (dB)"
        yield ""
        yield from _onset_table(evaluation)
        yield ""
    if stems:
        yield (
            f"dB; in brackets the mixture's own. Silent: level of what is left in {stems[0]} "
            f"where its reference lies below {FLOOR_DBFS:g} dBFS for a second."
        )
    if not evaluation.even:
        yield UNEVEN


def _track_table(results: Sequence[TrackResult], stems: Sequence[str]) -> Iterator[str]:
    header = [f"{stem[:12]} {name}" for stem in stems for name in ("uSDR", "cSDR")]
    rows = [["track", "min", *header, "silent dBFS"]]
    for result in results:
        cells = [_cells(result.stems[stem]) for stem in stems]
        row = [
            _short(result.track),
            _minutes(result.duration_s),
            *(c for pair in cells for c in pair),
        ]
        rows.append([*row, _level(result.leakage)])
    summaries = {stem: summarise_stem(results, stem) for stem in stems}
    cells = [_cells(summary) for summary in summaries.values()]
    total = _minutes(sum(result.duration_s for result in results))
    level = _level(summarise_leakage(results))
    rows.append(["mean uSDR, median of others", total, *(c for pair in cells for c in pair), level])
    yield from _aligned(rows)
    yield ""
    for stem, summary in summaries.items():
        yield (
            f"{stem}: uSDR {summary.usdr_gain:+.2f} dB, cSDR {summary.csdr_gain:+.2f} dB over the "
            f"mixture; {summary.dropped} of {summary.frames} frames dropped for silence"
        )


def _cells(scores: StemSummary | StemScores) -> tuple[str, str]:
    """uSDR and cSDR, each with the mixture's."""
    return (
        f"{number(scores.usdr)} ({number(scores.mixture_usdr)})",
        f"{number(scores.csdr)} ({number(scores.mixture_csdr)})",
    )


def _level(leakage: LeakageSummary | Leakage) -> str:
    if math.isnan(leakage.level_dbfs):
        return "-"
    return f"{number(leakage.level_dbfs, 1)} ({number(leakage.mixture_dbfs, 1)})"


def _length_table(evaluation: Evaluation) -> Iterator[str]:
    stem = evaluation.stems[0]
    rows = [["model", *(f"{length} s" for length in evaluation.lengths_s)]]
    for results in evaluation.models:
        means = [number(summarise_stem(r, stem).usdr) for r in results.by_length.values()]
        rows.append([results.model.name, *means])
    yield from _aligned(rows)


def _onset_table(evaluation: Evaluation) -> Iterator[str]:
    rows = [["model", "duration", "onsets", "quartile", "median", "quartile", "over mixture"]]
    for results in evaluation.models:
        for part in bin_onsets(results.tracks):
            figures = (part.quartile_1, part.median, part.quartile_3, part.gain)
            label = [results.model.name, duration_range(part), str(part.count)]
            rows.append([*label, *(number(figure) for figure in figures)])
    yield from _aligned(rows, left=2)


def _aligned(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Columns of equal width; all but the first `left` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for index, row in enumerate(rows):
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
        if index == 0:
            yield "  ".join("-" * width for width in widths)


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _TRACK_WIDTH else name[: _TRACK_WIDTH - 1] + "…"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
