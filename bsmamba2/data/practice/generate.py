"""A folder of practice songs in MUSDB's layout, made in parallel, song by song.

DIR/practice.json                             what the set is
DIR/{train,valid,test}/song-00000/song.json   what a song is made of
DIR/{train,valid,test}/song-00000/{mixture,vocals,drums,bass,other}.wav
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bsmamba2.data.practice.instruments import SAMPLE_RATE
from bsmamba2.data.practice.song import make_song
from bsmamba2.data.practice.sounds import check_installed, choose_sounds, find_soundfonts
from bsmamba2.errors import BsmError, DataError
from bsmamba2.files import atomic_path

SPLITS = ("train", "valid", "test")
RECIPE = 1
"""Goes up when the same seed gives other songs."""
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PracticeSet:
    """What makes a set of songs what it is."""

    counts: Mapping[str, int]
    """Songs of each split."""
    seconds: float
    """Length of a song."""
    seed: int
    """Of all songs."""
    soundfonts: tuple[Path, ...] = ()
    """Those to use; none: what is installed."""


@dataclass(frozen=True)
class _Task:
    folder: Path
    split: str
    index: int
    songs: PracticeSet


def generate_songs(
    folder: Path, songs: PracticeSet, *, jobs: int = 1, progress: Progress = lambda _: None
) -> int:
    """Makes the songs that are not there yet.

    Args:
        folder: Of the set; one that holds another set is refused.
        songs: What to make.
        jobs: Processes; the songs are the same for any number.
        progress: Called with the name of each finished song.

    Returns:
        How many were made.

    Raises:
        BsmError: Something is not installed, cannot be written, or failed in a song.
    """
    if songs.seconds < 1 or any(count < 0 for count in songs.counts.values()):
        raise DataError("A practice song lasts at least one second, and counts are not negative.")
    check_installed()
    songs = PracticeSet(
        counts=songs.counts,
        seconds=songs.seconds,
        seed=songs.seed,
        soundfonts=songs.soundfonts or tuple(find_soundfonts()),
    )
    for soundfont in songs.soundfonts:
        if not soundfont.is_file():
            raise DataError(f"No soundfont {soundfont}: name a .sf2 or .sf3 file.")
    _claim(folder, songs)
    tasks = [
        _Task(folder / split / f"song-{index:05d}", split, index, songs)
        for split in SPLITS
        for index in range(songs.counts.get(split, 0))
    ]
    missing = [task for task in tasks if not task.folder.exists()]
    for name in _run(missing, jobs):
        progress(name)
    return len(missing)


def _run(tasks: list[_Task], jobs: int) -> Iterator[str]:
    if jobs <= 1 or len(tasks) <= 1:
        yield from map(_make, tasks)
        return
    # Not forked: this process may have threads. The song of a killed process stays a partial.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, len(tasks))) as pool:
        yield from pool.imap_unordered(_make, tasks)


def _make(task: _Task) -> str:
    """Writes one song into a folder that takes its name when it is complete."""
    name = f"{task.split}/{task.folder.name}"
    songs = task.songs
    spawn_key = (SPLITS.index(task.split), task.index)
    rng = np.random.default_rng(np.random.SeedSequence(songs.seed, spawn_key=spawn_key))
    sounds = choose_sounds(task.split, songs.soundfonts)
    song = make_song(rng, sounds, songs.seconds)
    with _partial_folder(task.folder) as partial:
        for stem, samples in song.stems.items():
            soundfile.write(partial / f"{stem}.wav", samples.T, SAMPLE_RATE, subtype="PCM_16")
        about = {"name": name, "seed": songs.seed, "seconds": songs.seconds, **song.about}
        (partial / "song.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    return name


@contextlib.contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes its name when the block succeeds, and goes otherwise."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the splits, where nothing takes it for a song.
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent.parent))
    except OSError as error:
        raise BsmError(f"Cannot write into {folder.parent}: {error.strerror or error}.") from error
    try:
        yield partial
        partial.chmod(0o755)
        partial.rename(folder)
    except (OSError, soundfile.LibsndfileError) as error:
        raise BsmError(f"Cannot write {folder}: {getattr(error, 'strerror', error)}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _claim(folder: Path, songs: PracticeSet) -> None:
    """Marks the folder with its set, or checks that it is this set's."""
    mark = folder / "practice.json"
    this: dict[str, Any] = {
        "recipe": RECIPE,
        "seed": songs.seed,
        "seconds": songs.seconds,
        "soundfonts": sorted(path.name for path in songs.soundfonts),
    }
    if mark.exists():
        try:
            there = json.loads(mark.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{mark} cannot be read: choose another folder.") from error
        different = [key for key, value in this.items() if there.get(key) != value]
        if different:
            raise DataError(
                f"{folder} holds practice songs of another {' and '.join(different)}: choose "
                "another folder."
            )
    elif any((folder / split).exists() and os.listdir(folder / split) for split in SPLITS):
        raise DataError(f"{folder} holds songs that are no practice songs: choose another folder.")
    with atomic_path(mark) as partial:
        partial.write_text(json.dumps(this, indent=2) + "\n", "utf-8")
