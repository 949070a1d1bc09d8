"""How cost grows: songs of more and more chunks, batches of more and more chunks.

Both are measured on one engine in a process each, small counts first, so that the process's peak
memory at each point is of no longer song and no larger batch. A straight line is fitted; how far
the points are from it says whether the cost is linear.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common.job import Job, Task, peak_memory_mib
from bsmamba2.runtime import EngineOptions, Separator, load_engine
from bsmamba2.runtime.engines.base import Engine

LENGTHS = (2, 4, 8, 16, 32)
BATCHES = (1, 2, 4, 8)
SEED = 0
_BLOCK_S = 1  # a song comes in blocks of as many seconds, as from a decoder


def growth(job: Job) -> tuple[Task, dict[str, Any]]:
    """A task that measures all counts once, by the job's kind."""
    engine = load_engine(job.file or "default", EngineOptions(device="cpu", threads=job.threads))
    measure = {"length": _song, "batch": _batch}[job.kind]

    def task() -> dict[str, Any]:
        return {"points": [measure(engine, count) | {"chunks": count} for count in job.counts]}

    audio = engine.metadata.model.audio
    about = {"file": "the embedded engine" if job.file in ("", "default") else job.file}
    return task, about | engine.describe() | {"chunk_s": audio.chunk_s}


def _song(engine: Engine, chunks: int) -> dict[str, float]:
    """A song of whole chunks, made on the way, streamed through a `Separator`; stems dropped."""
    audio = engine.metadata.model.audio
    seconds = chunks * audio.chunk_s
    separator = Separator(engine, overlap_s=0)
    start = time.perf_counter()
    blocks = separator.stream(_noise(seconds, audio.sample_rate), audio.sample_rate, 2)
    samples = sum(next(iter(block.values())).shape[1] for block in blocks)
    elapsed = time.perf_counter() - start
    assert samples == seconds * audio.sample_rate
    return {"seconds": elapsed, "audio_s": seconds, "peak_memory_mib": peak_memory_mib()}


def _noise(seconds: int, rate: int) -> Iterator[NDArray[np.float32]]:
    random = np.random.default_rng(SEED)
    for _ in range(0, seconds, _BLOCK_S):
        yield 0.1 * random.standard_normal((2, _BLOCK_S * rate), np.float32)


def _batch(engine: Engine, chunks: int) -> dict[str, float]:
    """One call of the engine with a batch."""
    audio = engine.metadata.model.audio
    shape = (chunks, audio.channels, audio.chunk_frames, audio.bins, 2)
    spectrum = np.random.default_rng(SEED).standard_normal(shape, np.float32)
    start = time.perf_counter()
    engine(spectrum)
    elapsed = time.perf_counter() - start
    return {
        "seconds": elapsed,
        "audio_s": chunks * audio.chunk_s,
        "peak_memory_mib": peak_memory_mib(),
    }


def growth_figures(about: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Points, medians over the rounds after the warm-up, and the line through them."""
    measured = [each["points"] for each in rounds[1:]]
    points = []
    for same in zip(*measured, strict=True):
        seconds = [point["seconds"] for point in same]
        points.append(
            {
                "chunks": same[0]["chunks"],
                "audio_s": same[0]["audio_s"],
                "seconds": float(np.median(seconds)),
                "min": min(seconds),
                "max": max(seconds),
                # of the first round in the process: later ones have the longest song behind them
                "peak_memory_mib": point_memory(rounds, same[0]["chunks"]),
            }
        )
    line = fit([point["chunks"] for point in points], [point["seconds"] for point in points])
    return {"engine": dict(about), "points": points, "fit": line}


def point_memory(rounds: Sequence[Mapping[str, Any]], chunks: int) -> float:
    """Peak memory of the process when it had measured up to this count for the first time."""
    first = next(point for point in rounds[0]["points"] if point["chunks"] == chunks)
    return float(first["peak_memory_mib"])


def fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float] | None:
    """The line that is nearest in relative terms: seconds = start_s + chunks * chunk_s.

    Relative, since the time of a long song is not known to a fraction of that of a short one.

    Returns:
        start_s, chunk_s; worst_residual, the largest distance of a point from the line over the
        line's value; r2 of y; exponent, the slope of log y over log x: 1 is linear, 2 quadratic.
        None for fewer than three points, through which a line always goes.
    """
    if len(x) < 3:
        return None
    at, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    system = np.stack([np.ones_like(at), at], axis=1) / values[:, None]
    (start_s, chunk_s), *_ = np.linalg.lstsq(system, np.ones_like(at), rcond=None)
    line = start_s + chunk_s * at
    spread = float(np.sum((values - values.mean()) ** 2))
    return {
        "start_s": float(start_s),
        "chunk_s": float(chunk_s),
        "worst_residual": float(np.max(np.abs(values - line) / line)),
        "r2": 1 - float(np.sum((values - line) ** 2)) / spread if spread else 1.0,
        "exponent": float(np.polyfit(np.log(at), np.log(values), 1)[0]),
    }
