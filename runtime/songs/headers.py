"""Reads the headers of songs, and of the files that an earlier run made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import BsmError
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.writing import OutputFormat
from bsmamba2.runtime.songs.jobs import Job
from bsmamba2.runtime.songs.pipes import STDOUT, check_files
from bsmamba2.runtime.songs.sources import Failure
from bsmamba2.system.atomic import remove_abandoned_above


@dataclass(frozen=True, kw_only=True)
class SongHeader:
    """What a song's header says, and whether the song is already separated."""

    job: Job
    duration_s: float | None
    """Length of the section that will be separated; None if unknown."""
    sample_rate: int
    channels: int
    complete: bool
    """Whether all output files exist and have the song's sample rate, channels and length."""


def read_headers(
    jobs: Iterable[Job], output: OutputFormat, *, skip_existing: bool = False
) -> tuple[list[SongHeader], list[Failure]]:
    """Reads the headers of songs, and of those of their output files that exist.

    Args:
        jobs: The songs.
        output: The format of all stems.
        skip_existing: Whether the run will skip songs that an earlier one has completed.

    Returns:
        The headers in order, and the songs that cannot be separated or whose files cannot be
        written.
    """
    headers, failures = [], []
    for job in jobs:
        try:
            header = _read(job)
            if not (skip_existing and header.complete):
                check_files(job.files)
                output.check_rate(header.sample_rate)
        except BsmError as error:
            failures.append(Failure(job.name, str(error)))
        else:
            headers.append(header)
    return headers, failures


def split_complete(jobs: Iterable[Job]) -> tuple[list[Job], list[Job]]:
    """Splits jobs into those still to do and those that an earlier run has completed.

    A song is opened only if all of its output files exist. Temporary files beside completed ones,
    left by a run that was killed at its very end, are removed, because no later run would do so.
    """
    todo: list[Job] = []
    complete: list[Job] = []
    for job in jobs:
        (complete if _is_complete(job) else todo).append(job)
    for folder in {file.parent for job in complete for file in job.files}:
        remove_abandoned_above(folder)
    return todo, complete


def _is_complete(job: Job) -> bool:
    try:
        return all(file.is_file() for file in job.files) and _read(job).complete
    except (BsmError, OSError):  # OSError: a name that is too long
        return False  # separating the song will report the error


def _read(job: Job) -> SongHeader:
    with job.open() as song:
        if song.frames == 0:
            next(song.blocks(), None)  # raises, unless there are samples after all
        return SongHeader(
            job=job,
            duration_s=None if song.frames is None else song.frames / song.sample_rate,
            sample_rate=song.sample_rate,
            channels=song.channels,
            complete=all(_is_stem(file, song) for file in job.outputs.values())
            and (job.picture is None or job.picture.is_file()),
        )


def _is_stem(path: Path, song: AudioReader) -> bool:
    if path == STDOUT:
        return False
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
