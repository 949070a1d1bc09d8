"""Tracks, which are songs with known stems: MUSDB18-HQ, or any folder of the same layout.

    ROOT/train/NAME/{mixture,vocals,drums,bass,other}.wav
    ROOT/valid/...      optional; without it, musdb's validation songs are split off from train
    ROOT/test/...

The files may have the suffix of any audio format, in upper or lower case. What is left out of a
split is listed with its reason. This module does not import torch, because the evaluation uses it
too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bsmamba2.config.training import DataConfig
from bsmamba2.errors import BsmError, DataError, one_line, short_reason
from bsmamba2.runtime.audio.decoding import EXACT_SEEKS
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.songs.sources import is_audio_file
from bsmamba2.system.files import c_path

_LISTED = 5  # names in a phrase about what is left out
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
    """The folder of its audio files."""
    files: tuple[Path, ...]
    """All audio files in the folder, sorted."""
    frames: int = 0
    """Samples per channel according to the first readable header; 0 if none is readable."""

    def has(self, name: str) -> bool:
        """Whether there is a file of a stem, or of the mixture."""
        return any(path.stem.lower() == name.lower() for path in self.files)

    def stem(self, name: str) -> Path:
        """Returns the path of a stem, or of the mixture; that of a WAV file if there is none.

        Raises:
            DataError: Several files are called that, apart from upper and lower case.
        """
        found = [path for path in self.files if path.stem.lower() == name.lower()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise DataError(f"{self.folder} holds {names}: keep one file of {name}.")
        return found[0] if found else self.folder / f"{name}.wav"


@dataclass(frozen=True, kw_only=True)
class FoundTracks:
    """The songs of a split, and what is left out of it."""

    tracks: list[Track]
    """Sorted by name."""
    left_out: Mapping[str, str]
    """Name of a folder or an audio file in the split's folder -> why it is not one of the songs."""

    def __str__(self) -> str:
        """Returns a phrase like "2 songs, 1 left out: notes (no audio files)"."""
        count = "1 song" if len(self.tracks) == 1 else f"{len(self.tracks)} songs"
        return ", ".join(filter(None, (count, self.describe_left_out())))

    def describe_left_out(self) -> str:
        """Returns a phrase like "1 left out: notes (no audio files)", or "" for nothing."""
        listed = [f"{one_line(name)} ({reason})" for name, reason in self.left_out.items()]
        if not listed:
            return ""
        if len(listed) > _LISTED:
            listed[_LISTED:] = [f"{len(listed) - _LISTED} more"]
        return f"{len(self.left_out)} left out: {', '.join(listed)}"


def check_data_folder(root: Path) -> None:
    """Raises DataError unless the folder of a dataset exists; `find_tracks` checks the rest."""
    if not root.is_dir():
        raise DataError(f"No data folder {root}: name the folder of MUSDB18-HQ.")


def find_tracks(root: Path, split: str, data: DataConfig) -> FoundTracks:
    """Finds the tracks of a split; reads headers only, see `checks` for the rest.

    Args:
        root: Folder of the whole dataset.
        split: "train", "valid" or "test".
        data: Names of the stems.

    Raises:
        DataError: The folder is missing or has another layout, or the split has no tracks.
    """
    if split not in SPLITS:
        raise DataError(f"No split '{split}': name one of {', '.join(SPLITS)}.")
    own_folder = (root / "valid").is_dir()
    folder = root / ("train" if split == "valid" and not own_folder else split)
    tracks, left_out = _list_songs(root, folder, data)
    if split == "train" and not own_folder:
        tracks = [track for track in tracks if track.name not in VALIDATION_TRACKS]
    if split == "valid" and not own_folder:
        tracks = [track for track in tracks if track.name in VALIDATION_TRACKS]
        left_out = {}  # listed for the split "train"
        if not tracks:
            raise DataError(
                f"{root} has no validation songs: put some into {root / 'valid'}, as its folder "
                "train contains none of MUSDB18's validation songs."
            )
    tracks = [replace(track, frames=_frames(track, data.stems)) for track in tracks]
    found = FoundTracks(tracks=tracks, left_out=left_out)
    if not tracks:
        but = f", {found.describe_left_out()}" if left_out else ""
        raise DataError(
            f"The split '{split}' is empty: {folder} contains no folder with audio files for it"
            f"{but}; lay the songs out like MUSDB18-HQ, each in a folder of its own."
        )
    return found


def seekable_frames(path: Path) -> int | None:
    """Returns the samples per channel that `read_segment` can reach; None if it cannot read a file.

    It reads encodings in which seeking is exact, such as WAV and FLAC.
    """
    try:
        info = soundfile.info(c_path(path))
    except (soundfile.SoundFileError, RuntimeError):
        return None
    return int(info.frames) if info.subtype.startswith(EXACT_SEEKS) else None


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


def _list_songs(root: Path, folder: Path, data: DataConfig) -> tuple[list[Track], dict[str, str]]:
    """Lists the folders with audio files, without their lengths, and what is left out."""
    check_data_folder(root)
    if not folder.is_dir():
        wanted = ",".join((MIXTURE, *data.stems))
        raise DataError(
            f"{root} is not laid out like MUSDB18-HQ: {folder} is missing, which should contain a "
            f"folder for each song with {{{wanted}}}.wav."
        )
    tracks: list[Track] = []
    left_out: dict[str, str] = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and path.name[0] == ".":
                left_out[path.name] = "hidden"
            elif path.is_dir():
                files = tuple(sorted(filter(is_audio_file, path.iterdir())))
                if files:
                    tracks.append(Track(name=path.name, folder=path, files=files))
                else:
                    left_out[path.name] = "no audio files"
            elif is_audio_file(path):
                left_out[path.name] = "not in a folder"
            elif path.is_symlink() and not path.exists():
                left_out[path.name] = "broken link"
    except OSError as error:
        where = error.filename or folder
        reason = error.strerror or error
        raise DataError(f"{where} cannot be listed: {reason}; check its permissions.") from error
    return tracks, left_out


def _frames(track: Track, stems: Sequence[str]) -> int:
    for name in (*stems, MIXTURE):  # training does not check the mixture
        with contextlib.suppress(BsmError, OSError), AudioReader(track.stem(name)) as reader:
            if reader.frames:
                return reader.frames
    return 0
