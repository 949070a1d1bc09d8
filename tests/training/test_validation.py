"""The mean uSDR over validation songs, of which some have nothing to separate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_engines import small_metadata
from small_runs import records, small_config

from bsmamba2.cli.train import validation_line
from bsmamba2.config.file import load_config
from bsmamba2.data.tracks import find_tracks
from bsmamba2.training.distributed import Processes
from bsmamba2.training.train import train
from bsmamba2.training.validation import validate

RATE = 44100


def write_song(folder: Path, vocals: float, drums: float) -> None:
    """A song of one second, whose stems are noise at these levels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(folder.name))
    stems = {name: level * rng.standard_normal((RATE, 2)) for name, level in
             (("vocals", vocals), ("drums", drums), ("bass", 0), ("other", 0))}  # fmt: skip
    for name, samples in (stems | {"mixture": sum(stems.values())}).items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")


class Half(torch.nn.Module):
    """A network that halves everything."""

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.5, 0.0]).expand(spectrum.shape)


def validated(root: Path) -> dict:
    tracks = find_tracks(root, "valid", load_config("tiny").data).tracks
    here = Processes(rank=0, count=1, device=torch.device("cpu"))
    return validate(Half(), small_metadata(), tracks, here)[0]


def test_a_silent_song_changes_no_mean_of_a_validation(tmp_path: Path):
    songs = tmp_path / "valid"
    write_song(songs / "sung", 0.1, 0.1)
    alone = validated(tmp_path)
    write_song(songs / "quiet", 0, 0.1)
    write_song(songs / "a cappella", 0.1, 0)
    found = validated(tmp_path)
    assert "without" not in validation_line({"step": 1, **alone})
    assert "dB), without 2 of 3 songs" in validation_line({"step": 1, **found})
    assert (alone["silent"], found["silent"]) == (0, 2)
    assert [found[name] for name in ("usdr", "mixture_usdr")] == [
        alone[name] for name in ("usdr", "mixture_usdr")
    ]
    assert found["tracks"] == {"a cappella": None, "quiet": None, **alone["tracks"]}


def test_where_no_validation_song_has_vocals_the_last_validation_is_the_best(
    songs: Path, tmp_path: Path
):
    root = tmp_path / "songs"
    root.mkdir()
    (root / "train").symlink_to(songs / "train")
    write_song(root / "valid" / "quiet", 0, 0.1)
    said: list[dict] = []
    config = small_config(tmp_path, "training.keep_best=1")
    outcome = train(config, root, tmp_path / "run", cache=tmp_path / "cache", listener=said.append)
    assert outcome.best is None
    (line, _) = (validation_line(one) for one in said if one["kind"] == "validation")
    assert line.startswith("Step 3: no validation song has a uSDR")
    found = records(tmp_path / "run", "validation")
    assert [(one["step"], one["usdr"], one["tracks"]) for one in found] == [
        (3, None, {"quiet": None}), (6, None, {"quiet": None}),
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "run/best").glob("*.ckpt")] == ["step-6.ckpt"]
    for line in (tmp_path / "run/log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
