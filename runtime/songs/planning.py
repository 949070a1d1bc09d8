"""What a run will do, by the files' headers; and what an earlier run has done already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import BsmError
from bsmamba2.runtime.audio.pictures import PNG_END
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.songs.jobs import Job
from bsmamba2.runtime.songs.sources import Failure


@dataclass(frozen=True, kw_only=True)
class PlannedSong:
    """A song, as far as its header tells."""

    job: Job
    duration_s: float | None
    """Of what will be separated; None if unknown."""
    sample_rate: int
    channels: int
    complete: bool
    """Whether all of its files are there already."""


def plan_songs(jobs: Iterable[Job]) -> tuple[list[PlannedSong], list[Failure]]:
    """Reads the headers of songs, and of their files that exist.

    Returns:
        The songs in order, and those that cannot be separated.
    """
    songs, failures = [], []
    for job in jobs:
        try:
            songs.append(_plan(job))
        except BsmError as error:
            failures.append(Failure(job.name, str(error)))
    return songs, failures


def is_complete(job: Job) -> bool:
    """Whether all files of a song are there, as long as it is and with its rate and channels.

    That is what an earlier run with the same options leaves. Of songs whose files are not all
    there, nothing is opened.
    """
    try:
        return all(file.is_file() for file in job.files) and _plan(job).complete
    except (BsmError, OSError):  # a name that is too long, too
        return False  # the song will be told in its turn


def _plan(job: Job) -> PlannedSong:
    with AudioReader(job.source, section=job.section, name=job.name) as song:
        return PlannedSong(
            job=job,
            duration_s=None if song.frames is None else song.frames / song.sample_rate,
            sample_rate=song.sample_rate,
            channels=song.channels,
            complete=all(_is_stem(file, song) for file in job.outputs.values())
            and (job.picture is None or _is_picture(job.picture)),
        )


def _is_stem(path: Path, song: AudioReader) -> bool:
    try:
        with AudioReader(path) as stem:
            if (stem.sample_rate, stem.channels) != (song.sample_rate, song.channels):
                return False
            if stem.frames is None or song.frames is None:
                return True
            allowed = 0 if song.exact and stem.exact else song.sample_rate // 2
            return abs(stem.frames - song.frames) <= allowed
    except BsmError:
        return False


def _is_picture(path: Path) -> bool:
    try:
        return path.read_bytes().endswith(PNG_END)
    except OSError:
        return False
