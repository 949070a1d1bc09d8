"""Measures how the cost grows with the length of a song and with the size of a batch.

Each is measured on one engine in a process of its own, small counts first, so that the peak memory
at a point comes from no longer song and no larger batch. A straight line is fitted; the distance of
the points from it shows whether the cost is linear.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.timing.worker import Task, peak_memory_mib
from bsmamba2.runtime import EngineOptions, Separator, load_engine
from bsmamba2.runtime.engines.base import Engine

LENGTHS = (2, 4, 8, 16, 32)
BATCHES = (1, 2, 4, 8)


def growth(
    *, kind: str, file: str, threads: int | None, counts: Sequence[int]
) -> tuple[Task, dict[str, Any]]:
    """Computes all counts of chunks in a turn, each as a song ("length") or a batch ("batch")."""
    engine = load_engine(file, EngineOptions(device="cpu", threads=threads))
    chunk_s = engine.metadata.model.audio.chunk_s
    made = {"length": _song, "batch": _batch}[kind]

    def task() -> dict[str, Any]:
        points = []
        for chunks in counts:
            compute = made(engine, chunks)
            start = time.perf_counter()
            compute()
            point = {"seconds": time.perf_counter() - start, "audio_s": chunks * chunk_s}
            points.append(point | {"peak_memory_mib": peak_memory_mib(), "chunks": chunks})
        return {"points": points}

    about = {"file": "the embedded engine" if file == "default" else file}
    return task, about | engine.describe() | {"chunk_s": chunk_s}


def _song(engine: Engine, chunks: int) -> Callable[[], object]:
    """Streams a song of whole chunks, generated in blocks of a second, and drops the stems."""
    audio = engine.metadata.model.audio
    noise, second = np.random.default_rng(0), (2, audio.sample_rate)
    blocks = (
        0.1 * noise.standard_normal(second, np.float32) for _ in range(chunks * audio.chunk_s)
    )
    stems = Separator(engine, overlap_s=0).stream(blocks, audio.sample_rate, 2)
    return lambda: deque(stems, maxlen=0)


def _batch(engine: Engine, chunks: int) -> Callable[[], object]:
    """Returns a call of the engine with a batch."""
    audio = engine.metadata.model.audio
    shape = (chunks, audio.channels, audio.chunk_frames, audio.bins, 2)
    spectrum = np.random.default_rng(0).standard_normal(shape, np.float32)
    return lambda: engine(spectrum)


def growth_figures(about: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Points with medians over the rounds after the warm-up, and the line through them.

    The memory of a point is that of the warm-up: later rounds follow the longest song.
    """
    points = []
    for first, *later in zip(*(each["points"] for each in rounds), strict=True):
        seconds = [point["seconds"] for point in later]
        points.append(
            {
                "chunks": first["chunks"],
                "audio_s": first["audio_s"],
                "seconds": float(np.median(seconds)),
                "min": min(seconds),
                "max": max(seconds),
                "peak_memory_mib": first["peak_memory_mib"],
            }
        )
    line = fit([point["chunks"] for point in points], [point["seconds"] for point in points])
    return {"engine": dict(about), "points": points, "fit": line}


def fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float] | None:
    """Fits seconds = start_s + chunks * chunk_s with the least relative errors.

    Errors are relative, because the time of a long song varies by more than a short one takes.

    Returns:
        start_s, chunk_s; worst_residual, the largest distance of a point from the line over the
        line's value; r2 of y; exponent, the slope of log y over log x: 1 is linear, 2 quadratic.
        None for fewer than three points, which always lie on a line.
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
