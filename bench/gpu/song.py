"""A song through `Separator`: wall time, and whose it is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.network import BATCHES, model_of, new_network
from bench.gpu.part import Part
from bsmamba2.formats.metadata import Metadata, Provenance

_SEED = 0
_SONG_S = {"full": 240, "quick": 48, "rehearsal": 3}


def song(part: Part) -> None:
    """Four minutes through a `.safetensors` engine."""
    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.runtime import EngineOptions, load_engine

    job, model = part.job, model_of(part)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        provenance = Provenance(source="random weights", licence="none", trained=False)
        metadata = Metadata(model=model, provenance=provenance)
        save_weights(path, new_network(part, model).state_dict(), metadata)
        precision = "float32" if job.rehearsal else "float16"
        engine = load_engine(path, EngineOptions(device=part.device.type, precision=precision))
    part.values |= separate_song(part, engine)
    part.save()


def separate_song(part: Part, engine: Any) -> dict[str, Any]:
    """Separates noise; figures. An engine that has no arrays on the host has no share of its own.

    Args:
        part: At work.
        engine: Of the runtime.
    """
    from bsmamba2.runtime import Separator
    from bsmamba2.runtime.engines.estimation import EstimatingEngine

    job, rate = part.job, engine.metadata.model.audio.sample_rate
    seconds = _SONG_S["rehearsal" if job.rehearsal else "quick" if job.quick else "full"]
    mixture = np.random.default_rng(_SEED).normal(0, 0.1, (2, seconds * rate)).astype(np.float32)
    on_device = isinstance(engine, EstimatingEngine)  # STFT and its inverse, too
    timed = engine if on_device else _TimedEngine(engine)
    separator = Separator(timed, batch=BATCHES[-1])
    if not job.rehearsal:
        separator.separate(mixture, rate)  # to warm up: kernels, graphs of all its batches
    before_s = 0.0 if on_device else timed.seconds
    start_s = time.perf_counter()
    stems = separator.separate(mixture, rate)
    wall_s = time.perf_counter() - start_s
    assert all(np.isfinite(stem).all() for stem in stems.values())
    share = None if on_device else (timed.seconds - before_s) / wall_s
    part.say(f"{seconds} s in {wall_s:.2f} s")
    return {
        "engine": engine.describe(),
        "song_s": seconds,
        "wall_s": wall_s,
        "times_real_time": seconds / wall_s,
        "share": None if share is None else {"engine": share, "rest": 1 - share},
        "stft": "CuPy on the GPU" if on_device else "SciPy on the CPU",
    }


class _TimedEngine:
    """An engine with a stopwatch; copies to and from the device are its own."""

    def __init__(self, engine: Any) -> None:
        self._engine: Callable[[Any], Any] = engine
        self.metadata = engine.metadata
        self.describe = engine.describe
        self.seconds = 0.0

    def __call__(self, spectrum: Any) -> Any:
        start_s = time.perf_counter()
        result = self._engine(spectrum)
        self.seconds += time.perf_counter() - start_s
        return result
