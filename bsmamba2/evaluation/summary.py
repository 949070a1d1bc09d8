"""Results of tracks -> figures of a model, and all of them as JSON or as tables for a terminal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.evaluation.evaluate import EvaluationFailure, ModelResults
from bsmamba2.evaluation.onsets import DURATIONS_S, FLOOR_DBFS
from bsmamba2.evaluation.results import Leakage, StemScores, TrackResult

UNEVEN = "Some tracks failed, so that not all figures are over the same ones: compare with care."
"""To be said where `Evaluation.even` is not so."""
_TRACK_WIDTH = 34


@dataclass(frozen=True, kw_only=True)
class StemSummary(StemScores):
    """One stem over all tracks: means of uSDR and medians of cSDR where it is defined, in dB."""

    usdr_gain: float
    """Mean over tracks of uSDR - the mixture's."""
    csdr_gain: float
    """Median over tracks of cSDR - the mixture's."""


@dataclass(frozen=True, kw_only=True)
class LeakageSummary(Leakage):
    """Silent seconds over all tracks: medians over those tracks that have some."""

    tracks: int


@dataclass(frozen=True, kw_only=True)
class OnsetBin:
    """Onsets of one range of durations, over all tracks; SDRs in dB, NaN without onsets."""

    from_s: float
    to_s: float
    """Infinite in the last."""
    count: int
    quartile_1: float
    median: float
    quartile_3: float
    gain: float
    """Median of SDR - the mixture's."""

    @property
    def durations(self) -> str:
        """The range, for people."""
        if math.isinf(self.to_s):
            return f"{self.from_s:g} s and more"
        return f"{self.from_s:g} to {self.to_s:g} s"


def summarise_stem(results: Sequence[TrackResult], stem: str) -> StemSummary:
    """Figures of one stem."""
    scores = [result.stems[stem] for result in results]
    return StemSummary(
        usdr=_mean(s.usdr for s in scores),
        csdr=_median(s.csdr for s in scores),
        mixture_usdr=_mean(s.mixture_usdr for s in scores),
        mixture_csdr=_median(s.mixture_csdr for s in scores),
        usdr_gain=_mean(s.usdr - s.mixture_usdr for s in scores),
        csdr_gain=_median(s.csdr - s.mixture_csdr for s in scores),
        frames=sum(s.frames for s in scores),
        dropped=sum(s.dropped for s in scores),
    )


def summarise_leakage(results: Sequence[TrackResult]) -> LeakageSummary:
    """Figures of the silent seconds."""
    silent = [result.leakage for result in results if result.leakage.silent_s]
    return LeakageSummary(
        tracks=len(silent),
        silent_s=sum(leakage.silent_s for leakage in silent),
        level_dbfs=_median(leakage.level_dbfs for leakage in silent),
        mixture_dbfs=_median(leakage.mixture_dbfs for leakage in silent),
    )


def bin_onsets(results: Sequence[TrackResult]) -> list[OnsetBin]:
    """Onsets of all tracks by their duration."""
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
    """All that a run of `bsm eval` found."""

    data: Path
    split: str
    overlap_s: float
    models: Sequence[ModelResults]
    failures: Sequence[EvaluationFailure]
    by_onset: bool
    """Whether onsets are to be shown."""

    @property
    def stems(self) -> list[str]:
        """Names of the stems, the target first; none if nothing was measured."""
        found = (result.stems for model in self.models for result in model.tracks)
        return list(next(found, {}))

    @property
    def even(self) -> bool:
        """Whether all figures are over the same tracks, as they are unless some failed."""
        sets = [results for m in self.models for results in (m.tracks, *m.by_length.values())]
        return len({tuple(result.track for result in results) for results in sets}) <= 1

    @property
    def lengths_s(self) -> list[int]:
        """Lengths of pieces, in the order asked for."""
        return list(self.models[0].by_length) if self.models else []

    def document(self) -> dict[str, Any]:
        """Plain values for JSON; null where a number is undefined or infinite."""
        values = {
            "data": str(self.data),
            "split": self.split,
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
    """Without NaN and infinities, which JSON does not know."""
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
    return float(np.median(kept)) if kept else math.nan


# --- tables ---


def number(value: float, digits: int = 2) -> str:
    """A figure of a table: '-' where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


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
            yield from ("", *_track_table(results.tracks, stems))
        yield ""
    if evaluation.lengths_s and stems:
        yield f"{stems[0]} by length of the input, mean uSDR (dB)"
        yield from ("", *_length_table(evaluation), "")
    if evaluation.by_onset and stems:
        yield f"{stems[0]} by duration of its onsets, SDR (dB)"
        yield from ("", *_onset_table(evaluation), "")
    if stems:
        yield (
            f"dB; in brackets the mixture's own. Silent: level of what is left in {stems[0]} "
            f"where its reference lies below {FLOOR_DBFS:g} dBFS for a second."
        )
    if not evaluation.even:
        yield UNEVEN


def _track_table(results: Sequence[TrackResult], stems: Sequence[str]) -> Iterator[str]:
    summaries = {stem: summarise_stem(results, stem) for stem in stems}
    rows: list[tuple[str, float, Mapping[str, StemScores], Leakage]]
    rows = [(_short(r.track), r.duration_s, r.stems, r.leakage) for r in results]
    total_s = sum(result.duration_s for result in results)
    rows.append(("mean uSDR, median of others", total_s, summaries, summarise_leakage(results)))
    header = [f"{stem[:12]} {name}" for stem in stems for name in ("uSDR", "cSDR")]
    table = [["track", "min", *header, "silent dBFS"]]
    for name, duration_s, scores, leakage in rows:
        cells = [
            f"{number(own)} ({number(mixture)})"
            for stem in stems
            for own, mixture in (
                (scores[stem].usdr, scores[stem].mixture_usdr),
                (scores[stem].csdr, scores[stem].mixture_csdr),
            )
        ]
        minutes = f"{int(duration_s) // 60}:{int(duration_s) % 60:02d}"
        level = f"{number(leakage.level_dbfs, 1)} ({number(leakage.mixture_dbfs, 1)})"
        table.append([name, minutes, *cells, level if leakage.silent_s else "-"])
    yield from _aligned(table)
    yield ""
    for stem, summary in summaries.items():
        yield (
            f"{stem}: uSDR {summary.usdr_gain:+.2f} dB, cSDR {summary.csdr_gain:+.2f} dB over the "
            f"mixture; {summary.dropped} of {summary.frames} frames dropped for silence"
        )


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
            figures = map(number, (part.quartile_1, part.median, part.quartile_3, part.gain))
            rows.append([results.model.name, part.durations, str(part.count), *figures])
    yield from _aligned(rows, left=2)


def _aligned(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Columns of equal width; all but the first `left` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (rows[0], ["-" * width for width in widths], *rows[1:]):
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _TRACK_WIDTH else name[: _TRACK_WIDTH - 1] + "…"
