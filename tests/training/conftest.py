"""Short songs and a network of a few thousand weights: a step takes milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from faults_train import CONFIG

RATE = 44100
STEMS = ("vocals", "drums", "bass", "other")


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of three seconds, tones in noise; one has FLAC files, one is for validation."""
    root = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    time_s = np.arange(3 * RATE) / RATE
    for number, split in enumerate(("train", "train", "valid")):
        folder = root / split / f"song {number}"
        folder.mkdir(parents=True)
        mixture = np.zeros((len(time_s), 2), np.float32)
        for place, stem in enumerate(STEMS):
            tone = 0.1 * np.sin(2 * np.pi * (110 * (place + 1) + 7 * number) * time_s)
            samples = (tone[:, None] + 0.02 * rng.normal(size=mixture.shape)).astype(np.float32)
            name, subtype = ("flac", "PCM_24") if number == 1 else ("wav", "FLOAT")
            soundfile.write(folder / f"{stem}.{name}", samples, RATE, subtype=subtype)
            mixture += samples
        soundfile.write(folder / "mixture.wav", mixture, RATE, subtype="FLOAT")
    (root / "train" / "notes").mkdir()
    return root


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """`faults_train.CONFIG` as a file."""
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path
