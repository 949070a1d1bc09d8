"""Noise songs of a few seconds at 8 kHz, and a configuration that fits them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from bsmamba2.config.file import load_config
from bsmamba2.config.model import AudioConfig
from bsmamba2.config.training import DataConfig
from bsmamba2.data.tracks import MIXTURE, Track

RATE = 8000
AUDIO = AudioConfig(sample_rate=RATE, channels=2, chunk_s=1, n_fft=512, hop=80, target="vocals")
DATA = load_config("bsmamba2").data
STEMS = DATA.stems


def data_config(**changes: object) -> DataConfig:
    return replace(DATA, **changes)


def noise(seconds: float, seed: int, level: float = 0.1) -> np.ndarray:
    """Stereo noise, (samples, 2)."""
    return level * np.random.default_rng(seed).standard_normal((round(seconds * RATE), 2))


def bursts(seconds: float, seed: int) -> np.ndarray:
    """Noise whose level, sometimes silence, changes twice a second; (samples, 2)."""
    rng = np.random.default_rng([seed, 1])
    count = int(2 * seconds) + 2
    levels = rng.choice([0.0, 0.0005, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25], size=(count, 1))
    levels = levels * rng.choice([1.0, 0.001], p=[0.9, 0.1], size=(count, 2))
    samples = noise(seconds, seed, 1.0)
    return samples * np.repeat(levels, RATE // 2, axis=0)[: len(samples)]


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(samples, -1, 0.999), rate, subtype=subtype)
    return path


def write_song(
    folder: Path, seconds: float, seed: int, *, make=noise, suffix: str = ".wav"
) -> Track:
    """A song whose mixture is the sum of its stems."""
    names = (*STEMS, MIXTURE)
    stems = [make(seconds, 10 * seed + number) for number in range(len(STEMS))]
    paths = [folder / f"{name}{suffix}" for name in names]
    for path, samples in zip(paths, [*stems, sum(stems)], strict=True):
        write(path, samples)
    files = tuple(sorted(paths))
    return Track(name=folder.name, folder=folder, files=files, frames=round(seconds * RATE))


def write_songs(root: Path, **counts: int) -> Path:
    """Writes songs of 4 s; `counts` is split -> number of songs."""
    for split, count in counts.items():
        for number in range(count):
            write_song(root / split / f"{split} song {number}", 4, number)
    return root


def place(source: str, root: Path) -> tuple[Path, int]:
    """File and first sample of "track/stem@seconds"."""
    track, rest = source.rsplit("/", 1)
    stem, seconds = rest.split("@")
    return root / "train" / track / f"{stem}.wav", round(float(seconds) * RATE)
