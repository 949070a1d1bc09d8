"""`bsm infer`: separates files and folders."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bsmamba2.cli.engine_options import engine_options, song_bars
from bsmamba2.errors import OptionError, failure_sentence, one_line

if TYPE_CHECKING:
    from bsmamba2.runtime.audio.writing import OutputFormat
    from bsmamba2.runtime.engines import Engine, EngineOptions
    from bsmamba2.runtime.separation.separator import Separator
    from bsmamba2.runtime.songs.jobs import Job
    from bsmamba2.runtime.songs.separate_files import SeparatedSong
    from bsmamba2.runtime.songs.sources import Failure

logger = logging.getLogger(__name__)

_TIME = re.compile(r"(?:(?:(\d+):(?=[0-5]?\d:))?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


class Time(click.types.FloatParamType):
    """Seconds, given as 75, 75.5, 1:15.5, 75:30 or 1:15:30."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """As click's."""
        if isinstance(value, float):
            return value
        match = _TIME.fullmatch(str(value))
        if not match or (":" in value and float(match[3]) >= 60):
            self.fail(f"'{value}' is no time: give seconds (75.5) or minutes (1:15.5).", param, ctx)
        hours, minutes, seconds = match.groups()
        return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option(
    "--engine",
    default="default",
    show_default=True,
    metavar="FILE",
    type=click.Path(),
    help="A .onnx, .plan or .safetensors file; 'default' is the one in the package.",
)
@click.option(
    "-o",
    "--out",
    default="out/{folder}/{track}/{stem}.{ext}",
    show_default=True,
    metavar="NAME",
    type=click.Path(),
    help="Names of the files to write; {folder} is where a song lies below a folder that is "
    "named. '-': one stem of one song goes to stdout.",
)
@click.option(
    "--stems",
    metavar="NAMES",
    help="Which stems, separated by commas.  [default: all the engine gives]",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["wav", "flac", "mp3", "ogg"]),
    help="File format.  [default: by the suffix in --out, or wav]",
)
@click.option(
    "--depth",
    type=click.Choice(["16", "24", "float"]),
    help="Bits of a sample.  [default: float for wav, 24 for flac]",
)
@click.option(
    "--clip",
    type=click.Choice(["none", "clamp", "rescale"]),
    default="none",
    show_default=True,
    help="Samples beyond full scale: 'none' leaves them (16 and 24 bits cut them off, and a "
    "warning counts them), 'clamp' cuts them off in every format, 'rescale' makes all stems of "
    "the song quieter by one factor.",
)
@click.option(
    "--picture",
    is_flag=True,
    help="Also write a PNG of each song: spectrograms of mixture and stems.",
)
@click.option(
    "--start",
    type=Time(),
    metavar="TIME",
    default=0.0,
    help="Where to begin in each song: seconds, or minutes as in 1:30.",
)
@click.option("--duration", type=Time(), metavar="TIME", help="How much of it to separate.")
@click.option("-r", "--recursive", is_flag=True, help="Search folders in folders, too.")
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave songs alone whose files are all there, of the right length: a run that was "
    "ended goes on.",
)
@engine_options(overlap_s=1.0, auto_batch=True)
@click.option(
    "--tta",
    type=click.Choice(["swap", "polarity", "both"]),
    help="Average over estimates of the song with its channels swapped (twice the work), its "
    "polarity inverted (twice), or both (four times).",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Songs at a time; they share the engine. Pays where the engine is quick, as on a GPU.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, by the files' headers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    engine: str,
    out: str,
    stems: str | None,
    format_name: str | None,
    depth: str | None,
    clip: str,
    picture: bool,
    start: float,
    duration: float | None,
    recursive: bool,
    skip_existing: bool,
    overlap_s: float,
    batch: int,
    backend: EngineOptions,
    tta: str | None,
    jobs: int,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Separate files, and the audio files in folders; '-' is stdin.

    Each input gives one file a stem, of its own sample rate, channels and length, with its title
    and other tags. The names of written files go to stdout. What fails is listed at the end and
    makes the exit code 1.
    """
    from bsmamba2.cli import infer_report as report
    from bsmamba2.runtime.audio.reader import Section
    from bsmamba2.runtime.audio.writing import OutputFormat
    from bsmamba2.runtime.engines import load_engine, read_metadata
    from bsmamba2.runtime.separation.batching import useful_batch
    from bsmamba2.runtime.separation.separator import RESIDUAL, Separator
    from bsmamba2.runtime.songs.headers import read_headers, split_complete
    from bsmamba2.runtime.songs.jobs import make_jobs
    from bsmamba2.runtime.songs.output_template import OutputTemplate
    from bsmamba2.runtime.songs.sources import found_sources

    template = OutputTemplate(out)
    if template.to_stdout and as_json:
        raise OptionError("stdout takes either the stem or the JSON: leave one of them out.")
    output = OutputFormat(template.format_name(format_name), depth, clip)
    section = Section(start, duration)
    chosen = _choose_stems(stems, (read_metadata(engine).model.audio.target, RESIDUAL))
    with found_sources(inputs, recursive=recursive, leave_out=template.top) as (sources, failures):
        found, failures = make_jobs(
            sources, failures, template, chosen, output.name, picture=picture, section=section
        )
        if dry_run:
            headers, unreadable = read_headers(found)
            failures += unreadable
            if as_json:
                report.print_headers_document(headers, failures)
            else:
                report.print_headers(headers, skip_existing=skip_existing, quiet=quiet)
            ctx.exit(_tell(failures))
        todo, skipped = split_complete(found) if skip_existing else (found, [])
        summary = None
        if todo:
            loaded = load_engine(engine, backend)
            batch = batch or useful_batch(loaded)
            separator = Separator(loaded, overlap_s=overlap_s, batch=batch, tta=tta)
            _warn_of_weights(engine, loaded)
            started = time.perf_counter()
            songs, failed = _separate(
                separator,
                todo,
                output,
                jobs,
                quiet=quiet,
                names=not (as_json or template.to_stdout),
            )
            failures += failed
            summary = report.Summary(
                engine={
                    "path": engine,
                    "trained": loaded.metadata.provenance.trained,
                    **loaded.describe(),
                },
                songs=songs,
                elapsed_s=time.perf_counter() - started,
                jobs=jobs,
                batch=batch,
            )
    if as_json:
        report.print_document(summary, skipped, failures)
    if not quiet:
        report.print_summary(summary, skipped)
    ctx.exit(_tell(failures))


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


def _tell(failures: Sequence[Failure]) -> int:
    """Lists what failed; the exit code."""
    for failure in failures:
        known = failure.source in failure.error
        sentence = f"{'' if known else failure.source + ': '}{failure.error}"
        click.echo(f"Failed: {one_line(sentence)}", err=True)
    return 1 if failures else 0


def _warn_of_weights(name: str, engine: Engine) -> None:
    """One line for weights that are not what a person may take them for."""
    if not engine.metadata.provenance.trained:
        click.echo(
            f"Warning: the weights of engine '{name}' are untrained (random numbers): "
            "the stems are no separation of voice and music.",
            err=True,
        )
    elif name == "default":
        click.echo(
            "Note: the embedded model is a small demonstration, trained on synthetic songs; for "
            "published weights, 'bsm import' and 'bsm export' a checkpoint and name it with "
            "--engine.",
            err=True,
        )


def _separate(
    separator: Separator,
    jobs: Sequence[Job],
    output: OutputFormat,
    at_once: int,
    *,
    quiet: bool,
    names: bool,
) -> tuple[list[SeparatedSong], list[Failure]]:
    """Separates songs with a bar for each; the names of written files may go to stdout."""
    from tqdm import tqdm

    from bsmamba2.runtime.songs.separate_files import separate_files
    from bsmamba2.runtime.songs.sources import Failure

    songs: list[SeparatedSong] = []
    failures: list[Failure] = []
    with song_bars(quiet) as bar:
        outcomes = separate_files(separator, jobs, output, at_once=at_once, watch=bar)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Exception):
                logger.debug("%s failed", job.name, exc_info=outcome)
                failures.append(Failure(job.name, failure_sentence(outcome, "infer")))
                continue
            songs.append(outcome)
            if names:
                with tqdm.external_write_mode():  # without the bars of the others
                    for path in job.files:
                        click.echo(os.fsencode(path))
    return songs, failures
