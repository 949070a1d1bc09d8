"""Tracks, which are songs with known stems: MUSDB18-HQ, or any folder of the same layout.

    ROOT/train/NAME/{mixture,vocals,drums,bass,other}.wav
    ROOT/valid/...      optional; without it, musdb's validation songs are split off from train
    ROOT/test/...

This module does not import torch, because the evaluation uses it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bsmamba2.config.training import DataConfig
from bsmamba2.errors import DataError, short_reason
from bsmamba2.system.files import c_path

SPLITS = ("train", "valid", "test")
MIXTURE = "mixture"
"""Name of the mixture's file; training does not read it, but sums its own mixtures."""

VALIDATION_TRACKS = frozenset(
    {
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)
"""The songs of ROOT/train that musdb's `validation_tracks` names (its mus.yaml)."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """A song of a dataset, with its mixture and stems."""

    name: str
    """Name of its folder."""
    folder: Path
    """The folder of its WAV files."""
    frames: int
    """Samples per channel according to the first readable header; 0 if none is readable."""

    def stem(self, name: str) -> Path:
        """Returns the path of a stem, or of the mixture."""
        return self.folder / f"{name}.wav"


def check_data_folder(root: Path) -> None:
    """Raises DataError unless the folder of a dataset exists; `find_tracks` checks the rest."""
    if not root.is_dir():
        raise DataError(f"No data folder {root}: name the folder of MUSDB18-HQ.")


def find_tracks(root: Path, split: str, data: DataConfig) -> list[Track]:
    """Finds the tracks of a split, sorted by name; reads headers only, see `checks` for the rest.

    Args:
        root: Folder of the whole dataset.
        split: "train", "valid" or "test".
        data: Names of the stems.

    Raises:
        DataError: The folder is missing or has another layout, or the split has no tracks.
    """
    if split not in SPLITS:
        raise DataError(f"No split '{split}': name one of {', '.join(SPLITS)}.")
    names = [path.name for path in _song_folders(root, _folder_of(root, split), data)]
    own_folder = (root / "valid").is_dir()
    if split == "train" and not own_folder:
        names = [name for name in names if name not in VALIDATION_TRACKS]
    if split == "valid" and not own_folder:
        names = [name for name in names if name in VALIDATION_TRACKS]
        if not names:
            raise DataError(
                f"{root} has no validation songs: put some into {root / 'valid'}, as its folder "
                "train contains none of MUSDB18's validation songs."
            )
    folder = _folder_of(root, split)
    tracks = []
    for name in names:
        path = folder / name
        tracks.append(Track(name=name, folder=path, frames=_frames(path, data.stems)))
    if not tracks:
        raise DataError(
            f"The split '{split}' is empty: no folder in {folder} contains WAV files for it; lay "
            "the songs out like MUSDB18-HQ."
        )
    return tracks


def read_segment(path: Path, start: int, frames: int) -> NDArray[np.float32]:
    """Reads samples [start, start + frames) of a file without reading those before.

    Returns:
        float32 (channels, frames), full scale 1.

    Raises:
        DataError: The file cannot be read, is too short, or holds NaN or Inf there.
    """
    try:
        with soundfile.SoundFile(c_path(path)) as file:
            file.seek(start)
            block = file.read(frames, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise DataError(f"{path} cannot be read ({short_reason(error)}): copy it again.") from error
    if len(block) < frames:
        raise DataError(f"{path} ends before sample {start + frames}: copy it again.")
    if not np.isfinite(block).all():
        raise DataError(f"{path} holds NaN or infinite samples after sample {start}: replace it.")
    return np.ascontiguousarray(block.T)


def _folder_of(root: Path, split: str) -> Path:
    return root / ("train" if split == "valid" and not (root / "valid").is_dir() else split)


def _song_folders(root: Path, folder: Path, data: DataConfig) -> list[Path]:
    """Lists the sub-folders that contain at least one WAV file, sorted."""
    check_data_folder(root)
    if not folder.is_dir():
        wanted = ",".join((MIXTURE, *data.stems))
        raise DataError(
            f"{root} is not laid out like MUSDB18-HQ: {folder} is missing, which should contain a "
            f"folder for each song with {{{wanted}}}.wav."
        )
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
        return sorted(path for path in found if any(path.glob("*.wav")))
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror or error}.") from error


def _frames(folder: Path, stems: Sequence[str]) -> int:
    for name in (MIXTURE, *stems):
        path = folder / f"{name}.wav"
        if path.is_file():
            try:
                return int(soundfile.info(c_path(path)).frames)
            except (soundfile.SoundFileError, RuntimeError):
                continue
    return 0
