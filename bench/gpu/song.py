"""A song through `Separator`: its wall time and the times of its stages."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.network import BATCHES, model_of, new_network
from bench.gpu.part import Part
from bsmamba2.formats.metadata import Metadata, Provenance

_SEED = 0
_SONG_S = {"full": 240, "quick": 48, "rehearsal": 3}


def random_metadata(part: Part) -> Metadata:
    """Returns metadata for a file with the weights of `new_network`."""
    provenance = Provenance(source="random weights", licence="none", trained=False)
    return Metadata(model=model_of(part), provenance=provenance)


def song(part: Part) -> None:
    """Separates four minutes with a `.safetensors` engine."""
    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.runtime import EngineOptions, load_engine

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_weights(path, new_network(part).state_dict(), random_metadata(part))
        precision = "float32" if part.job.rehearsal else "float16"
        engine = load_engine(path, EngineOptions(device=part.device.type, precision=precision))
    part.values |= separate_song(part, engine)


def separate_song(part: Part, engine: Any) -> dict[str, Any]:
    """Separates noise; returns figures. Stages overlap, so their sum may exceed the wall time.

    Args:
        part: The running part.
        engine: An engine of the runtime.
    """
    from bsmamba2.runtime import Separator
    from bsmamba2.runtime.engines.stage_times import StageTimes

    job, rate = part.job, engine.metadata.model.audio.sample_rate
    seconds = _SONG_S["rehearsal" if job.rehearsal else "quick" if job.quick else "full"]
    mixture = np.random.default_rng(_SEED).normal(0, 0.1, (2, seconds * rate)).astype(np.float32)
    separator = Separator(engine, batch=BATCHES[-1])
    if not job.rehearsal:
        separator.separate(mixture, rate)  # to warm up: kernels, graphs of all its batches
    times = StageTimes()
    start_s = time.perf_counter()
    for stems in separator.stream([mixture], rate, 2, times):
        assert all(np.isfinite(stem).all() for stem in stems.values())
    wall_s = time.perf_counter() - start_s
    part.say(f"{seconds} s in {wall_s:.2f} s")
    return {
        "engine": engine.describe(),
        "song_s": seconds,
        "wall_s": wall_s,
        "times_real_time": seconds / wall_s,
        "stages_s": {name: value for name, value in times.seconds.items() if value},
    }
