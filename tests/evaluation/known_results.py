"""Evaluation results with made-up numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from small_engines import FunctionEngine, real_mask

from bsmamba2.data.tracks import FoundTracks, Track
from bsmamba2.evaluation.evaluate import Model, ModelResults
from bsmamba2.evaluation.results import Leakage, Minute, Region, StemScores, TrackResult
from bsmamba2.evaluation.summary import Evaluation

NAN = math.nan


def region(start_s: float, duration_s: float, sdr: float) -> Region:
    return Region(start_s=start_s, duration_s=duration_s, sdr=sdr, mixture_sdr=sdr - 6)


def minute(start_s: float, duration_s: float, sdr: float, voiced_s: int = 30) -> Minute:
    voiced_s = min(voiced_s, int(duration_s))
    return Minute(**asdict(region(start_s, duration_s, sdr)), voiced_s=voiced_s)


def result(
    track: str = "song",
    usdr: float = 0,
    csdr: float = 0,
    leakage: float = NAN,
    onsets: tuple[Region, ...] = (),
    minutes: tuple[Minute, ...] = (),
) -> TrackResult:
    scores = StemScores(
        usdr=usdr, csdr=csdr, mixture_usdr=-2, mixture_csdr=-1, frames=10, dropped=3
    )
    silent = 0 if math.isnan(leakage) else 4
    return TrackResult(
        track=track,
        duration_s=10.5,
        chunk_s=8,
        overlap_s=0,
        elapsed_s=1,
        stems={"vocals": scores, "instrumental": scores},
        leakage=Leakage(silent_s=silent, level_dbfs=leakage, mixture_dbfs=leakage + 20),
        onsets=onsets,
        minutes=minutes,
        frames_db=(usdr, NAN, math.inf),
    )


def songs(names: Sequence[str], **left_out: str) -> FoundTracks:
    tracks = [Track(name=name, folder=Path("music") / name, files=()) for name in names]
    return FoundTracks(tracks=tracks, left_out=left_out)


def evaluation(results: list[TrackResult], names: tuple[str, ...] = ("m.onnx",)) -> Evaluation:
    models = [
        ModelResults(
            model=Model(name=name, engine=FunctionEngine(real_mask(1)), sha256="ab" * 32),
            tracks=results,
            by_length={1: results, 8: results},
        )
        for name in names
    ]
    return Evaluation(
        data=Path("music"),
        split="test",
        songs=songs([result.track for result in results], **{"<b>notes</b>": "no audio files"}),
        overlap_s=0,
        models=models,
        failures=[],
        by_onset=True,
    )
