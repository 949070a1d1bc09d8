"""Summarises the tracks of each model; writes the evaluation as JSON or as text tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.data.tracks import FoundTracks
from bsmamba2.errors import one_line
from bsmamba2.evaluation.evaluate import EvaluationFailure, ModelResults
from bsmamba2.evaluation.onsets import DURATIONS_S, FLOOR_DBFS
from bsmamba2.evaluation.results import Leakage, StemScores, TrackResult

SILENT = "silent"
"""In place of an SDR of a stem that is silent in a track."""
UNEVEN = "Some tracks failed, so not all figures cover the same tracks: compare with care."
"""Warning to show if `Evaluation.even` is false."""
_TRACK_WIDTH = 34


@dataclass(frozen=True, kw_only=True)
class StemSummary(StemScores):
    """One stem over the tracks without silent stems: means of uSDR and medians of cSDR, in dB."""

    usdr_gain: float
    """Mean over tracks of uSDR minus the mixture's uSDR."""
    csdr_gain: float
    """Median over tracks of cSDR minus the mixture's cSDR."""
    tracks: int
    """Number of tracks without silent stems."""
    silent_tracks: int
    """Number of tracks in which this stem is silent."""


@dataclass(frozen=True, kw_only=True)
class LeakageSummary(Leakage):
    """Leakage over all tracks: medians over those that have silent seconds."""

    tracks: int
    """Number of tracks with silent seconds."""


@dataclass(frozen=True, kw_only=True)
class OnsetBin:
    """Onsets of all tracks in one range of durations; SDRs in dB, NaN if there are no onsets."""

    from_s: float
    to_s: float
    """Infinite in the last bin."""
    count: int
    quartile_1: float
    median: float
    quartile_3: float
    gain: float
    """Median of SDR minus the mixture's SDR."""

    @property
    def durations(self) -> str:
        """The range as text."""
        if math.isinf(self.to_s):
            return f"{self.from_s:g} s and more"
        return f"{self.from_s:g} to {self.to_s:g} s"


def summarise_stem(results: Sequence[TrackResult], stem: str) -> StemSummary:
    """Summarises one stem, leaving out the tracks that have nothing to separate."""
    scores = [result.stems[stem] for result in results if not result.silent_stems]
    return StemSummary(
        usdr=_mean(s.usdr for s in scores),
        csdr=_median(s.csdr for s in scores),
        mixture_usdr=_mean(s.mixture_usdr for s in scores),
        mixture_csdr=_median(s.mixture_csdr for s in scores),
        usdr_gain=_mean(s.usdr - s.mixture_usdr for s in scores),
        csdr_gain=_median(s.csdr - s.mixture_csdr for s in scores),
        frames=sum(s.frames for s in scores),
        dropped=sum(s.dropped for s in scores),
        tracks=len(scores),
        silent_tracks=sum(result.stems[stem].silent for result in results),
    )


def summarise_leakage(results: Sequence[TrackResult]) -> LeakageSummary:
    """Summarises the leakage over all tracks."""
    silent = [result.leakage for result in results if result.leakage.silent_s]
    return LeakageSummary(
        tracks=len(silent),
        silent_s=sum(leakage.silent_s for leakage in silent),
        level_dbfs=_median(leakage.level_dbfs for leakage in silent),
        mixture_dbfs=_median(leakage.mixture_dbfs for leakage in silent),
    )


def bin_onsets(results: Sequence[TrackResult]) -> list[OnsetBin]:
    """Sorts the onsets of all tracks into bins by duration."""
    onsets = [onset for result in results for onset in result.onsets]
    bins = []
    for from_s, to_s in itertools.pairwise(DURATIONS_S):
        inside = [onset for onset in onsets if from_s <= onset.duration_s < to_s]
        sdrs = [onset.sdr for onset in inside]
        quartiles = np.quantile(sdrs, [0.25, 0.5, 0.75]) if sdrs else [math.nan] * 3
        bins.append(
            OnsetBin(
                from_s=from_s,
                to_s=to_s,
                count=len(inside),
                quartile_1=float(quartiles[0]),
                median=float(quartiles[1]),
                quartile_3=float(quartiles[2]),
                gain=_median(onset.sdr - onset.mixture_sdr for onset in inside),
            )
        )
    return bins


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All results of a run of `bsm eval`."""

    data: Path
    split: str
    songs: FoundTracks
    """The songs of the split, also those that failed."""
    overlap_s: float
    models: Sequence[ModelResults]
    failures: Sequence[EvaluationFailure]
    by_onset: bool
    """Whether onsets should be shown."""

    @property
    def stems(self) -> list[str]:
        """Names of the stems, the target first; none if nothing was measured."""
        found = (result.stems for model in self.models for result in model.tracks)
        return list(next(found, {}))

    @property
    def even(self) -> bool:
        """Whether all figures cover the same tracks; false if some tracks failed."""
        sets = [results for m in self.models for results in (m.tracks, *m.by_length.values())]
        return len({tuple(result.track for result in results) for results in sets}) <= 1

    @property
    def lengths_s(self) -> list[int]:
        """Lengths of the pieces, in the order given."""
        return list(self.models[0].by_length) if self.models else []

    def document(self) -> dict[str, Any]:
        """Returns plain values for JSON; null where a number is undefined or infinite."""
        values = {
            "data": str(self.data),
            "split": self.split,
            "songs": len(self.songs.tracks),
            "left_out": dict(self.songs.left_out),
            "overlap_s": self.overlap_s,
            "models": [self._model(results) for results in self.models],
            "failed": [asdict(failure) for failure in self.failures],
        }
        return _plain(values)

    def _model(self, results: ModelResults) -> dict[str, Any]:
        model = results.model
        values: dict[str, Any] = {
            "model": model.name,
            "sha256": model.sha256,
            "trained": model.trained,
            "engine": model.engine.describe(),
            "stems": {s: asdict(summarise_stem(results.tracks, s)) for s in self.stems},
            "leakage": asdict(summarise_leakage(results.tracks)),
            "tracks": [self._track(result) for result in results.tracks],
        }
        if results.by_length:
            values["by_length"] = {
                str(length): {"tracks": len(r)}
                | {s: asdict(summarise_stem(r, s)) for s in self.stems}
                for length, r in results.by_length.items()
            }
        if self.by_onset:
            values["by_onset"] = [asdict(part) for part in bin_onsets(results.tracks)]
        return values

    def _track(self, result: TrackResult) -> dict[str, Any]:
        left_out = {"minutes", "frames_db"} | (set() if self.by_onset else {"onsets"})
        return {key: value for key, value in asdict(result).items() if key not in left_out}


def _plain(value: Any) -> Any:
    """Replaces NaN and infinities, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Iterable[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return float(np.mean(kept)) if kept else math.nan


def _median(values: Iterable[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    with np.errstate(invalid="ignore"):  # between two infinities
        return float(np.median(kept)) if kept else math.nan


# --- tables ---


def number(value: float, digits: int = 2) -> str:
    """Formats a figure for a table; '-' if it is undefined, 'perfect' for an infinite SDR."""
    if math.isinf(value):
        return "perfect"
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def gain(value: float) -> str:
    """Formats a difference of two SDRs; '-' if it is undefined."""
    return f"{value:+.2f} dB" if math.isfinite(value) else "-"


def silence_notes(results: Sequence[TrackResult]) -> Iterator[str]:
    """Yields a sentence for each stem that is silent in some tracks."""
    for stem in results[0].stems if results else ():
        count = summarise_stem(results, stem).silent_tracks
        if count:
            tracks = "track" if len(results) == 1 else "tracks"
            has, are = ("has", "is") if count == 1 else ("have", "are")
            yield (
                f"{count} of {len(results)} {tracks} {has} no {stem} (below {FLOOR_DBFS:g} dBFS in "
                f"every second) and {are} left out of the mean uSDR and the median cSDR."
            )


def text_tables(evaluation: Evaluation) -> str:
    """Returns a table of tracks for each model, then the optional tables."""
    return "\n".join(_lines(evaluation))


def _lines(evaluation: Evaluation) -> Iterator[str]:
    stems = evaluation.stems
    for results in evaluation.models:
        name = results.model.name + ("" if results.model.trained else " (untrained)")
        songs, count = evaluation.songs, len(results.tracks)
        tracks = "1 track" if len(songs.tracks) == 1 else f"{len(songs.tracks)} tracks"
        if failed := len(songs.tracks) - count:
            tracks = f"{count} of {tracks} ({failed} failed)"
        if songs.left_out:
            tracks += f", {songs.describe_left_out()}"
        yield f"{name} on {evaluation.data}, {evaluation.split} split: {tracks}"
        if results.tracks:
            yield from ("", *_track_table(results.tracks, stems))
        yield ""
    if evaluation.lengths_s and stems:
        yield f"{stems[0]} by length of the input: mean uSDR in dB"
        yield from ("", *_length_table(evaluation), "")
    if evaluation.by_onset and stems:
        yield f"{stems[0]} by duration of the onsets: SDR in dB"
        yield from ("", *_onset_table(evaluation), "")
    if stems:
        yield "SDRs are in dB. In brackets: the same figures for the unprocessed mixture."
        yield (
            f"Silent dBFS: level of what is left in {stems[0]} in seconds whose reference is "
            f"below {FLOOR_DBFS:g} dBFS."
        )
    if not evaluation.even:
        yield UNEVEN


def _track_table(results: Sequence[TrackResult], stems: Sequence[str]) -> Iterator[str]:
    summaries = {stem: summarise_stem(results, stem) for stem in stems}
    rows: list[tuple[str, float, Mapping[str, StemScores], Leakage]]
    rows = [(_short(r.track), r.duration_s, r.stems, r.leakage) for r in results]
    total_s = sum(result.duration_s for result in results)
    label = "mean uSDR, median of the others"
    rows.append((label, total_s, summaries, summarise_leakage(results)))
    header = [f"{stem[:12]} {name}" for stem in stems for name in ("uSDR", "cSDR")]
    table = [["track", "length", *header, "silent dBFS"]]
    for name, duration_s, scores, leakage in rows:
        cells: list[str] = []
        for score in (scores[stem] for stem in stems):
            if score.silent:
                cells += ["-" if scores is summaries else SILENT, "-"]
            else:
                cells.append(f"{number(score.usdr)} ({number(score.mixture_usdr)})")
                cells.append(f"{number(score.csdr)} ({number(score.mixture_csdr)})")
        minutes = f"{int(duration_s) // 60}:{int(duration_s) % 60:02d}"
        level = f"{number(leakage.level_dbfs, 1)} ({number(leakage.mixture_dbfs, 1)})"
        table.append([name, minutes, *cells, level if leakage.silent_s else "-"])
    yield from _aligned(table)
    yield ""
    for stem, summary in summaries.items():
        if summary.tracks:
            gains = (gain(summary.usdr_gain), gain(summary.csdr_gain))
            yield (
                f"{stem}: uSDR {gains[0]}, cSDR {gains[1]} over the mixture; {summary.dropped} of "
                f"{summary.frames} seconds dropped from cSDR as silent"
            )
    yield from silence_notes(results)


def _length_table(evaluation: Evaluation) -> Iterator[str]:
    stem = evaluation.stems[0]
    rows = [["model", *(f"{length} s" for length in evaluation.lengths_s)]]
    for results in evaluation.models:
        means = [number(summarise_stem(r, stem).usdr) for r in results.by_length.values()]
        rows.append([results.model.name, *means])
    yield from _aligned(rows)


def _onset_table(evaluation: Evaluation) -> Iterator[str]:
    rows = [["model", "duration", "onsets", "25 %", "median", "75 %", "over mixture"]]
    for results in evaluation.models:
        for part in bin_onsets(results.tracks):
            figures = map(number, (part.quartile_1, part.median, part.quartile_3, part.gain))
            rows.append([results.model.name, part.durations, str(part.count), *figures])
    yield from _aligned(rows, left=2)


def _aligned(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Aligns columns: the first `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (rows[0], ["-" * width for width in widths], *rows[1:]):
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _short(name: str) -> str:
    name = one_line(" ".join(name.split()))
    return name if len(name) <= _TRACK_WIDTH else name[: _TRACK_WIDTH - 1] + "…"
