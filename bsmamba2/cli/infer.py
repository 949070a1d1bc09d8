"""`bsm infer`: separates files and folders into stems."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from bsmamba2.cli.engine_options import engine_options, song_bars
from bsmamba2.cli.headings import HeadedCommand, HeadedOption
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
    """Seconds, written as 75, 75.5, 1:15.5, 75:30 or 1:15:30."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Converts the text; see the class."""
        if isinstance(value, float):
            return value
        match = _TIME.fullmatch(str(value))
        if not match or (":" in value and float(match[3]) >= 60):
            self.fail(
                f"'{value}' is not a time: give seconds (75.5) or minutes (1:15.5).", param, ctx
            )
        hours, minutes, seconds = match.groups()
        return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


@click.command(
    cls=HeadedCommand,
    help="""Separate songs into vocals and instrumental.

    INPUTS are audio files, folders of audio files, or '-' for stdin. Every stem is written to a
    file with the sample rate, channels, length and tags of its song. The names of the files are
    printed on stdout.

    \b
    Examples:
      bsm infer song.wav
      bsm infer song.wav --engine model.onnx --format mp3
      bsm infer album -o 'stems/{track}.{stem}.{ext}' --stems instrumental

    The exit code is 1 if a song failed; failures are listed at the end, after the other songs.
    """,
)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option(
    "--engine",
    default="default",
    show_default=True,
    metavar="FILE",
    type=click.Path(),
    help="The model: a .onnx, .plan or .safetensors file, or 'default', the one in the package.",
)
@click.option(
    "-o",
    "--out",
    default="out/{folder}/{track}/{stem}.{ext}",
    show_default=True,
    metavar="NAME",
    type=click.Path(),
    help="Names of the files to write, or a folder for them; {folder} is where a song lies within "
    "an input folder, {trackext} the suffix of its file, as {ext} is that of the stems. '-' writes "
    "one stem of one song to stdout.",
)
@click.option(
    "--stems",
    metavar="NAMES",
    help="Stems to write, separated by commas, such as vocals,instrumental.  [default: all]",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["wav", "flac", "mp3", "ogg"]),
    help="File format.  [default: from the suffix of --out, otherwise wav]",
)
@click.option(
    "--depth",
    cls=HeadedOption,
    heading="Output details",
    type=click.Choice(["16", "24", "float"]),
    help="Bits per sample.  [default: float for wav, 24 for flac]",
)
@click.option(
    "--clip",
    type=click.Choice(["none", "clamp", "rescale"]),
    default="none",
    show_default=True,
    help="What to do with samples beyond full scale. none: leave them as they are (16 and 24 bits "
    "clip them, and a warning counts them); clamp: clip them in every format; rescale: make all "
    "stems of the song quieter by one factor.",
)
@click.option(
    "--picture",
    is_flag=True,
    help="Also write a PNG for each song: spectrograms of the mixture and its stems.",
)
@click.option(
    "--start",
    cls=HeadedOption,
    heading="Which songs, and which part of them",
    type=Time(),
    metavar="TIME",
    default=0.0,
    help="Where to begin in each song: seconds (75.5) or minutes (1:15.5).  [default: 0]",
)
@click.option(
    "--duration",
    type=Time(),
    metavar="TIME",
    help="How much of each song to separate.  [default: all]",
)
@click.option(
    "--downmix",
    is_flag=True,
    help="Mix songs of more than two channels, such as 5.1, down to stereo (ITU-R BS.775), instead "
    "of refusing them. Needs PyAV.",
)
@click.option("-r", "--recursive", is_flag=True, help="Also search folders within folders.")
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Skip songs whose files all exist with the right length, to continue a run that was "
    "interrupted. Options are not compared.",
)
@engine_options(overlap_s=1.0, auto_batch=True)
@click.option(
    "--tta",
    type=click.Choice(["swap", "polarity", "both"]),
    help="Test-time augmentation: average with estimates of the song with swapped channels (twice "
    "the work), with inverted polarity (twice), or both (four times).",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Songs to separate at a time, with one engine. Helps if the engine is fast, as on a GPU.",
)
@click.option(
    "--dry-run",
    cls=HeadedOption,
    heading="Runs and reports",
    is_flag=True,
    help="Only show what would be done, from the headers of the files.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary.")
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
    downmix: bool,
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
    """Runs `bsm infer`."""
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
            sources,
            failures,
            template,
            chosen,
            output.name,
            picture=picture,
            section=section,
            downmix=downmix,
        )
        if dry_run:
            headers, unreadable = read_headers(found, output, skip_existing=skip_existing)
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
            _warn_of_weights(engine, loaded, quiet=quiet)
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
    """Returns the stems of --stems, each once, in the order given."""
    from bsmamba2.config.reading import shown

    if names is None:
        return list(offered)
    known = {name.lower(): name for name in offered}
    given = map(str.strip, names.split(","))
    chosen = list(dict.fromkeys(known.get(name.lower(), name) for name in given))
    unknown = [name for name in chosen if name not in offered]
    if unknown:
        raise OptionError(
            f"No stem {shown(unknown[0])}: the stems of this engine are {' and '.join(offered)}."
        )
    return chosen


def _tell(failures: Sequence[Failure]) -> int:
    """Lists what failed and returns the exit code."""
    sentences = [
        failure.error if failure.source in failure.error else f"{failure.source}: {failure.error}"
        for failure in failures
    ]
    for sentence in dict.fromkeys(sentences):  # one may name several songs
        click.echo(f"Failed: {one_line(sentence)}", err=True)
    return 1 if failures else 0


def _warn_of_weights(name: str, engine: Engine, *, quiet: bool) -> None:
    """Warns of random weights; notes, unless `quiet`, that the embedded model is a small one."""
    if not engine.metadata.provenance.trained:
        click.echo(
            f"Warning: the weights of engine '{name}' are untrained (random numbers): "
            "the stems are meaningless.",
            err=True,
        )
    elif name == "default" and not quiet:
        click.echo(
            "Note: the embedded model is a small demonstration, trained on synthetic songs. For "
            "published weights, convert a checkpoint with 'bsm import' and 'bsm export', and name "
            "the result with --engine.",
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
    """Separates songs with a progress bar for each; `names` prints the files that are written.

    If stdout takes no more names, the songs that have begun are ended.
    """
    from tqdm import tqdm

    from bsmamba2.runtime.songs.separate_files import separate_files
    from bsmamba2.runtime.songs.sources import Failure

    songs: list[SeparatedSong] = []
    failures: list[Failure] = []
    with (
        song_bars(quiet) as bar,
        closing(separate_files(separator, jobs, output, at_once=at_once, watch=bar)) as outcomes,
    ):
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Exception):
                logger.debug("%s failed", job.name, exc_info=outcome)
                failures.append(Failure(job.name, failure_sentence(outcome, "infer")))
                continue
            songs.append(outcome)
            if names:
                with tqdm.external_write_mode():  # clears the bars of other songs meanwhile
                    for path in job.files:
                        click.echo(os.fsencode(path))
    return songs, failures
