"""Results of tracks -> figures of a model, and the document that `bsm eval --json` prints."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.evaluation.evaluate import EvaluationFailure, ModelResults
from bsmamba2.evaluation.onsets import DURATIONS_S
from bsmamba2.evaluation.results import Minute, TrackResult

UNEVEN = "Some tracks failed, so that not all figures are over the same ones: compare with care."
"""To be said where `Evaluation.even` is not so."""


@dataclass(frozen=True, kw_only=True)
class StemSummary:
    """One stem over all tracks, in dB; NaN where no track defines a figure."""

    usdr: float
    """Mean over tracks."""
    csdr: float
    """Median over tracks; those without a cSDR left out."""
    mixture_usdr: float
    mixture_csdr: float
    usdr_gain: float
    """Mean over tracks of uSDR - the mixture's."""
    csdr_gain: float
    """Median over tracks of cSDR - the mixture's."""
    frames: int
    dropped: int
    """Frames without a cSDR."""


@dataclass(frozen=True, kw_only=True)
class LeakageSummary:
    """Silent seconds over all tracks: medians over those tracks that have some."""

    tracks: int
    silent_s: int
    level_dbfs: float
    mixture_dbfs: float


@dataclass(frozen=True, kw_only=True)
class OnsetBin:
    """Onsets of one range of durations, over all tracks."""

    from_s: float
    to_s: float
    """Infinite in the last."""
    count: int
    quartile_1: float
    """Of the onsets' SDR in dB; NaN without onsets."""
    median: float
    quartile_3: float
    gain: float
    """Median of SDR - the mixture's."""


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


def find_extreme_minutes(results: Sequence[TrackResult]) -> list[tuple[TrackResult, Minute]]:
    """The minutes of best and worst SDR, or the only one.

    Minutes with less than 10 s of voice do not count, unless there are no others: their SDR says
    more about the silence.
    """
    minutes = [(result, minute) for result in results for minute in result.minutes]
    voiced = [(r, m) for r, m in minutes if m.voiced_s >= min(_VOICED_S, int(m.duration_s))]
    ordered = sorted(voiced or minutes, key=lambda pair: -pair[1].sdr)
    return [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered


_VOICED_S = 10


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
