"""Makes a folder of practice songs in MUSDB's layout, several songs in parallel.

DIR/practice.json                             what the songs of the folder share
DIR/{train,valid,test}/song-00000/song.json   what a song is made of
DIR/{train,valid,test}/song-00000/{mixture,vocals,drums,bass,other}.wav

practice.json holds `recipe` (version of this generator), `seed`, `seconds` and `soundfonts` (file
names). song.json holds `name`, `seed`, `seconds`, `tempo` (beats per minute), `key` (pitch class,
0 is C), `minor`, `soundfonts` and `programs` (by stem; General MIDI programs counted from 0, drum
kits in bank 128), `voices` (engine and name) and `levels_db` (drums, bass and other: RMS relative
to each other; vocals: RMS while active, relative to the sum of the other three).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bsmamba2.data.practice.installed import check_installed
from bsmamba2.data.practice.instruments import SAMPLE_RATE
from bsmamba2.data.practice.song import Pcm, make_song
from bsmamba2.data.practice.sounds import check_soundfont, choose_sounds, find_soundfonts
from bsmamba2.data.practice.workers import share_out
from bsmamba2.errors import DataError
from bsmamba2.system.atomic import claimed, temporary_folder, write_atomic, writing

SPLITS = ("train", "valid", "test")
RECIPE = 3
"""Version of this generator; increase it when a seed no longer makes the same songs."""


@dataclass(frozen=True, kw_only=True)
class PracticeSet:
    """The parameters of a set of songs."""

    counts: Mapping[str, int]
    """Split -> number of songs."""
    seconds: float
    """Length of a song; making one takes about 15 MB of memory per second."""
    seed: int
    """Seed of all songs."""
    soundfonts: tuple[Path, ...] = ()
    """Soundfonts to use; if empty, those that are installed."""


def generate_songs(
    folder: Path,
    songs: PracticeSet,
    *,
    jobs: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> int:
    """Makes the songs that do not exist yet.

    A song's folder gets its final name only when it is complete.

    Args:
        folder: Folder of the set; one that holds another set is refused.
        songs: Parameters of the set.
        jobs: Number of processes, which does not change the songs. See `workers.share_out`.
        progress: Called once for each song, including those that exist already.

    Returns:
        The number of songs made.

    Raises:
        BsmError: Something is not installed, cannot be written, or failed in a song.
    """
    check_installed()
    songs = replace(songs, soundfonts=songs.soundfonts or tuple(find_soundfonts()))
    for soundfont in songs.soundfonts:
        check_soundfont(soundfont)
    with claimed(folder), temporary_folder(folder) as workshop:
        _mark(folder, songs)
        tasks = [
            (songs, workshop, split, index)
            for split in SPLITS
            for index in range(songs.counts.get(split, 0))
            if not _song(folder, split, index).exists()
        ]
        for _ in range(sum(songs.counts.values()) - len(tasks)):
            progress()
        with contextlib.closing(share_out(_make, tasks, jobs)) as made:
            for _ in made:
                progress()
    return len(tasks)


def _song(folder: Path, split: str, index: int) -> Path:
    return folder / split / f"song-{index:05d}"


def _make(task: tuple[PracticeSet, Path, str, int]) -> None:
    """Makes a song in the temporary folder `workshop` and moves it into the set when complete."""
    songs, workshop, split, index = task
    spawn_key = (SPLITS.index(split), index)
    rng = np.random.default_rng(np.random.SeedSequence(songs.seed, spawn_key=spawn_key))
    stems, about = make_song(rng, choose_sounds(split, songs.soundfonts), songs.seconds)
    final, partial = (_song(folder, split, index) for folder in (workshop.parent, workshop))
    name = f"{split}/{final.name}"
    about = {"name": name, "seed": songs.seed, "seconds": songs.seconds, **about}
    with writing(final):
        partial.mkdir(parents=True)
        write_stems(partial, stems)
        (partial / "song.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        final.parent.mkdir(exist_ok=True)
        partial.rename(final)


def write_stems(folder: Path, stems: Mapping[str, Pcm]) -> None:
    """Writes WAV files into a folder; raises OSError."""
    for stem, samples in stems.items():
        # Encode in memory first: libsndfile does not tell a full disk from other faults.
        wav = io.BytesIO()
        soundfile.write(wav, samples.T, SAMPLE_RATE, subtype="PCM_16", format="WAV")
        (folder / f"{stem}.wav").write_bytes(wav.getbuffer())


def _mark(folder: Path, songs: PracticeSet) -> None:
    """Writes practice.json into a folder without songs; raises DataError for another set."""
    mark = folder / "practice.json"
    this: dict[str, Any] = {
        "recipe": RECIPE,
        "seed": songs.seed,
        "seconds": songs.seconds,
        "soundfonts": sorted(path.name for path in songs.soundfonts),
    }
    with writing(f"into {folder}"):
        splits = [path for path in map(folder.joinpath, SPLITS) if path.exists()]
        is_empty = not any(os.listdir(path) for path in splits)
    if is_empty:
        write_atomic(mark, json.dumps(this, indent=2) + "\n")
        return
    try:
        there = dict(json.loads(mark.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{folder} holds songs that are not practice songs: choose another folder."
        ) from error
    different = [key for key, value in this.items() if there.get(key) != value]
    if different:
        raise DataError(
            f"{folder} holds practice songs made with another {' and '.join(different)}: choose "
            "another folder."
        )
