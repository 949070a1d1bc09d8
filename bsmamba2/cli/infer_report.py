"""The reports of `bsm infer`: lines for people, a JSON document for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bsmamba2.errors import one_line

if TYPE_CHECKING:
    from bsmamba2.runtime.songs.headers import SongHeader
    from bsmamba2.runtime.songs.jobs import Job
    from bsmamba2.runtime.songs.separate_files import SeparatedSong
    from bsmamba2.runtime.songs.sources import Failure


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The songs that a run separated, and how long it took."""

    engine: dict[str, Any]
    """Its path, whether it is trained, and `Engine.describe`."""
    songs: Sequence[SeparatedSong]
    elapsed_s: float
    """Time from the start of the first song to the end of the last."""
    jobs: int
    """Songs separated at a time."""
    batch: int
    """Chunks that the engine processed at a time."""

    @property
    def engine_share(self) -> float:
        """Share of the elapsed time in which the engine worked, 0 to 1."""
        return sum(song.stages_s["engine"] for song in self.songs) / self.elapsed_s


def print_summary(summary: Summary | None, skipped: Sequence[Job]) -> None:
    """Prints a row for each of several songs, then a line on duration and speed, on stderr."""
    if skipped:
        count = "1 song" if len(skipped) == 1 else f"{len(skipped)} songs"
        click.echo(f"Skipped {count}, already separated.", err=True)
    if not summary or not summary.songs:
        return
    files = "1 file"
    if len(summary.songs) > 1:
        files = f"{len(summary.songs)} files"
        _print_table(summary.songs)
    audio_s = sum(song.duration_s for song in summary.songs)
    click.echo(
        f"{files}, {audio_s:.1f} s of audio in {summary.elapsed_s:.1f} s: "
        f"real-time factor {summary.elapsed_s / audio_s:.3f} "
        f"({audio_s / summary.elapsed_s:.1f} x real time), "
        f"the engine busy {summary.engine_share:.0%} of the time",
        err=True,
    )


def _print_table(songs: Sequence[SeparatedSong]) -> None:
    """Prints name, length, time taken and speed of each song, in columns."""
    width = max(len("song"), *(len(one_line(song.job.name)) for song in songs))
    row = f"{{:{width}}}  {{:>8}}  {{:>8}}  {{:>11}}"
    click.echo(row.format("song", "length", "took", "x real time"), err=True)
    for song in songs:
        times = _clock(song.duration_s), _clock(song.elapsed_s)
        speed = f"{1 / song.real_time_factor:.1f}"
        click.echo(row.format(one_line(song.job.name), *times, speed), err=True)


def _clock(seconds: float | None) -> str:
    """Formats a duration: 0:03.2, 3:25, 1:02:03."""
    if seconds is None:
        return "?:??"
    if seconds < 59.95:
        return f"0:{seconds:04.1f}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_document(
    summary: Summary | None, skipped: Sequence[Job], failures: Sequence[Failure]
) -> None:
    """Prints the JSON document of a run; `engine` and `run` are null if there was nothing to do."""
    document: dict[str, Any] = {"engine": None, "run": None, "files": []}
    if summary:
        document["engine"] = summary.engine
        document["run"] = {
            "jobs": summary.jobs,
            "batch": summary.batch,
            "elapsed_s": round(summary.elapsed_s, 3),
            "engine_share": round(summary.engine_share, 4),
        }
        document["files"] = [
            {
                **_files(song),
                "elapsed_s": round(song.elapsed_s, 3),
                "real_time_factor": round(song.real_time_factor, 4),
                "engine_share": round(song.engine_share, 4),
                "stages_s": {stage: round(s, 3) for stage, s in song.stages_s.items()},
            }
            for song in summary.songs
        ]
    document["skipped"] = [job.name for job in skipped]
    _print_json(document, failures)


def print_headers(headers: Sequence[SongHeader], *, skip_existing: bool, quiet: bool) -> None:
    """Prints what a run would do on stdout, and the total on stderr."""
    to_do: list[SongHeader] = []
    for song in headers:
        skipped = song.complete and skip_existing
        note = "  (already separated)" if skipped else _existing(song)
        channels = "mono" if song.channels == 1 else "stereo"
        text = f"  {_clock(song.duration_s)}  {song.sample_rate} Hz {channels}{note}"
        click.echo(one_line(song.job.name) + text)
        if not skipped:
            to_do.append(song)
            for file in song.job.files:
                click.echo(f"  -> {one_line(str(file))}")
    if not quiet:
        songs = "1 song" if len(to_do) == 1 else f"{len(to_do)} songs"
        audio = _clock(sum(song.duration_s or 0 for song in to_do))
        others = f"; {len(headers) - len(to_do)} already separated" if skip_existing else ""
        click.echo(f"{songs} to separate, {audio} of audio{others}. Nothing was written.", err=True)


def _existing(song: SongHeader) -> str:
    """Notes how many of a song's files a run would replace."""
    from bsmamba2.runtime.songs.pipes import STDOUT

    count = sum(file != STDOUT and os.path.exists(file) for file in song.job.files)
    if not count:
        return ""
    files = "1 file exists" if count == 1 else f"{count} files exist"
    return f"  ({files} and would be replaced)"


def print_headers_document(headers: Sequence[SongHeader], failures: Sequence[Failure]) -> None:
    """Prints what a run would do as a JSON document."""
    jobs = [{**_files(song), "there": song.complete} for song in headers]
    _print_json({"jobs": jobs}, failures)


def _files(song: SeparatedSong | SongHeader) -> dict[str, Any]:
    job = song.job
    return {
        "input": job.name,
        "outputs": {stem: str(path) for stem, path in job.outputs.items()},
        "picture": job.picture and str(job.picture),
        "duration_s": song.duration_s,
        "sample_rate": song.sample_rate,
        "channels": song.channels,
    }


def _print_json(document: dict[str, Any], failures: Sequence[Failure]) -> None:
    failed = [{"input": failure.source, "error": failure.error} for failure in failures]
    click.echo(json.dumps({**document, "failed": failed}, indent=2))
