"""Overfitting: a network trained on one excerpt of real music separates that excerpt."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from songs import decoded, excerpt

from bsmamba2.config.file import load_config
from bsmamba2.training.train import train

STREAMS = ("mixture", "drums", "bass", "other", "vocals")  # of a .stem.mp4
CONFIG = """
base: bsmamba2
audio: {chunk_s: 3, hop: 882}
network: {bands: [[4, 12], [12, 8], [25, 4], [50, 4], [108, 4], [149, 1]],
  d_model: 48, layers: 1, expand: 2, headdim: 48, d_state: 16, mask_expand: 2}
data: {silent_probability: 0.0, gain: [1.0, 1.0], coherent_probability: 1.0, items_per_epoch: 100}
loss: {stft_windows: [2048], stft_hop: 882}
training: {learning_rate: 0.01, schedule: cosine, warmup_steps: 10, precision: float32,
  batch_size: 1, accumulation: 1, processes: 1, max_epochs: 1, workers: 0, ema_decay: 0.8}
"""


def write_song(folder: Path) -> None:
    """Writes the excerpt in MUSDB18-HQ's layout."""
    song = excerpt()  # skips without PyAV
    folder.mkdir(parents=True)
    for index, stem in enumerate(STREAMS):
        samples = decoded(song, index)[: 6 * 44100]
        soundfile.write(folder / f"{stem}.wav", samples, 44100, subtype="FLOAT")


@pytest.mark.slow
def test_one_real_excerpt_is_learned_to_10_db(tmp_path):
    for split in ("train", "valid"):
        write_song(tmp_path / "songs" / split / "excerpt")
    config = tmp_path / "overfit.yaml"
    config.write_text(CONFIG)
    outcome = train(load_config(config), tmp_path / "songs", tmp_path / "run")
    assert outcome.best is not None
    assert outcome.best[1] >= 10  # dB; the mixture's own is -7
