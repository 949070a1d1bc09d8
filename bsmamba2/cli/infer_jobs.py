"""What `bsm infer` is going to do, found out from names and headers before an engine is loaded."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bsmamba2.cli.infer_options import SongOptions
from bsmamba2.cli.infer_report import clock
from bsmamba2.errors import OptionError

if TYPE_CHECKING:
    from bsmamba2.runtime.audio.writing import OutputFormat
    from bsmamba2.runtime.songs.jobs import Job, OutputTemplate
    from bsmamba2.runtime.songs.planning import PlannedSong
    from bsmamba2.runtime.songs.sources import Failure


@dataclass(frozen=True)
class Plan:
    """Songs to separate, and inputs that give none."""

    jobs: list[Job]
    failures: list[Failure]
    output: OutputFormat


def make_plan(
    inputs: Sequence[str], engine: str, options: SongOptions, resources: contextlib.ExitStack
) -> Plan:
    """Finds the songs and names their files.

    Args:
        inputs: Files, folders, and '-' for stdin, which is read now.
        engine: The engine's file; only its header is read.
        options: Of the command line.
        resources: Gets the temporary files of stdin and stdout.

    Raises:
        BsmError: Options that cannot be.
    """
    from bsmamba2.runtime.audio.reader import Section
    from bsmamba2.runtime.audio.writing import OutputFormat
    from bsmamba2.runtime.engines import read_metadata
    from bsmamba2.runtime.separation.separator import RESIDUAL
    from bsmamba2.runtime.songs.jobs import plan_outputs
    from bsmamba2.runtime.songs.sources import STDIN, find_sources, spooled

    template = _template(options, resources)
    output = OutputFormat(template.format_name(options.format_name), options.depth, options.clip)
    section = Section(options.start, options.duration)
    target = read_metadata(engine).model.audio.target
    stems = _choose_stems(options.stems, (target, RESIDUAL))
    stdin = None
    if STDIN in inputs:
        if sys.stdin is None or sys.stdin.isatty():
            kind = "the terminal" if sys.stdin else "closed"
            raise OptionError(f"stdin is {kind}: pipe a song into 'bsm infer -'.")
        stdin = resources.enter_context(spooled(sys.stdin.buffer))
    sources, failures = find_sources(
        inputs, recursive=options.recursive, leave_out=template.top, stdin=stdin
    )
    if options.to_stdout and (len(stems) > 1 or len(sources) + len(failures) > 1):
        raise OptionError(
            "stdout takes one stem of one song: name one file, and choose with --stems."
        )
    jobs, refused = plan_outputs(
        sources,
        template,
        stems,
        output.name,
        picture=options.picture,
        section=section,
        to_stdout=options.to_stdout,
    )
    return Plan(jobs, failures + refused, output)


def _template(options: SongOptions, resources: contextlib.ExitStack) -> OutputTemplate:
    """The names of the files; what goes to stdout has a temporary one."""
    from bsmamba2.runtime.songs.jobs import OutputTemplate
    from bsmamba2.system.atomic import temporary_folder

    if not options.to_stdout:
        return OutputTemplate(options.out)
    if options.picture:
        raise OptionError("stdout has no room for a picture: leave --picture out, or choose --out.")
    if sys.stdout is None or sys.stdout.isatty():
        kind = "the terminal" if sys.stdout else "closed"
        raise OptionError(f"stdout is {kind}: send '-o -' into a file or a program.")
    folder = str(resources.enter_context(temporary_folder()))
    return OutputTemplate(folder.replace("{", "{{").replace("}", "}}") + "/{stem}.{ext}")


def _choose_stems(names: str | None, offered: Sequence[str]) -> list[str]:
    """The stems of --stems, each once, in the order given."""
    from bsmamba2.config.reading import shown

    if names is None:
        return list(offered)
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
    unknown = [name for name in chosen if name not in offered]
    if unknown:
        raise OptionError(
            f"No stem {shown(unknown[0])}: this engine gives {' and '.join(offered)}."
        )
    return chosen


def split_jobs(jobs: Sequence[Job], skip_existing: bool) -> tuple[list[Job], list[Job]]:
    """What is to be done, and what an earlier run has done."""
    from bsmamba2.runtime.songs.planning import is_complete

    todo: list[Job] = []
    there: list[Job] = []
    for job in jobs:
        (there if skip_existing and is_complete(job) else todo).append(job)
    return todo, there


def print_plan(plan: Plan, *, skip_existing: bool, as_json: bool, quiet: bool) -> list[Failure]:
    """Shows on stdout what would be done.

    Args:
        plan: All songs.
        skip_existing: Whether those that are there would be passed over.
        as_json: One document in place of lines.
        quiet: No summary.

    Returns:
        The songs that cannot be separated.
    """
    from bsmamba2.runtime.songs.planning import plan_songs

    songs, unreadable = plan_songs(plan.jobs)
    failures = [*plan.failures, *unreadable]
    if as_json:
        document = {
            "plan": [_song(song) for song in songs],
            "failed": [{"input": failure.source, "error": failure.error} for failure in failures],
        }
        click.echo(json.dumps(document, indent=2))
        return failures
    known_s = 0.0
    for song in songs:
        skipped = song.complete and skip_existing
        there = "  (there already)" if song.complete else ""
        channels = "mono" if song.channels == 1 else "stereo"
        click.echo(
            os.fsencode(f"{song.job.name}  {clock(song.duration_s)}  {song.sample_rate} Hz ")
            + f"{channels}{there}".encode()
        )
        if skipped:
            continue
        known_s += song.duration_s or 0
        pictures = [song.job.picture] if song.job.picture else []
        for file in [*song.job.shown.values(), *pictures]:
            click.echo(b"  -> " + os.fsencode(file))
    if not quiet:
        complete = sum(song.complete for song in songs)
        click.echo(
            f"{len(songs)} {'song' if len(songs) == 1 else 'songs'}, {clock(known_s)} of audio "
            f"to do; {complete} there already. Nothing was written.",
            err=True,
        )
    return failures


def _song(song: PlannedSong) -> dict[str, Any]:
    job = song.job
    return {
        "input": job.name,
        "outputs": {stem: str(path) for stem, path in job.shown.items()},
        "picture": job.picture and str(job.picture),
        "duration_s": song.duration_s,
        "sample_rate": song.sample_rate,
        "channels": song.channels,
        "there": song.complete,
    }
