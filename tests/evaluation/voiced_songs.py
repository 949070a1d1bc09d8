"""Songs of a few seconds in MUSDB18-HQ's layout, with vocals that are active at given times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from small_engines import FunctionEngine

from bsmamba2.config.file import load_config
from bsmamba2.data.tracks import Track, find_tracks
from bsmamba2.evaluation.evaluate import Model
from bsmamba2.runtime.engines.base import Spectrum
from bsmamba2.system.files import c_path

RATE = 44100
STEMS = ("vocals", "drums", "bass", "other")


def voice(
    duration_s: float, bursts: Sequence[tuple[float, float]], level: float = 0.1
) -> np.ndarray:
    """Noise within the bursts, (start, stop) in s, and digital silence elsewhere: (n, 2)."""
    n = round(duration_s * RATE)
    samples = np.zeros((n, 2))
    noise = np.random.default_rng(n).standard_normal((n, 2)) * level
    for start, stop in bursts:
        inside = slice(round(start * RATE), round(stop * RATE))
        samples[inside] = noise[inside]
    return samples


def write_song(
    root: Path, name: str, vocals: np.ndarray, *, split: str = "test", seed: int = 0
) -> dict[str, np.ndarray]:
    """Writes a song with the given vocals and noise in the other stems; returns the samples."""
    random = np.random.default_rng(seed)
    stems = {"vocals": vocals}
    for level, stem in zip((0.05, 0.03, 0.02), STEMS[1:], strict=True):
        stems[stem] = random.standard_normal(vocals.shape) * level
    stems = {stem: samples.astype(np.float32) for stem, samples in stems.items()}
    stems["mixture"] = sum(stems.values())
    return write_stems(root / split / name, stems)


def write_stems(folder: Path, stems: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes (n, channels) as float32 files; returns them as (channels, n)."""
    folder.mkdir(parents=True)
    for stem, samples in stems.items():
        soundfile.write(
            c_path(folder / f"{stem}.wav"), samples, RATE, subtype="FLOAT", format="WAV"
        )
    return {stem: samples.T.astype(np.float64) for stem, samples in stems.items()}


def plain_usdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """uSDR, written out as its formula."""
    s, y = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    return float(10 * np.log10((np.sum(s**2) + 1e-7) / (np.sum((s - y) ** 2) + 1e-7)))


def model_of(function: Callable[[Spectrum], Any], name: str = "engine") -> Model:
    return Model(name=name, engine=FunctionEngine(function), sha256=name)


def tracks_of(root: Path) -> list[Track]:
    return find_tracks(root, "test", load_config("bsmamba2").data).tracks
