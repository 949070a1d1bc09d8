"""`bsm infer`: separates files and folders."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bsmamba2.cli.engine_options import engine_options, song_bars
from bsmamba2.cli.infer_options import SongOptions, song_options
from bsmamba2.errors import FileError, OptionError, failure_sentence, one_line

if TYPE_CHECKING:
    from bsmamba2.cli.infer_report import Run
    from bsmamba2.runtime.audio.writing import OutputFormat
    from bsmamba2.runtime.engines import Engine, EngineOptions
    from bsmamba2.runtime.separation.separator import Separator
    from bsmamba2.runtime.songs.jobs import Job
    from bsmamba2.runtime.songs.separate_files import Report
    from bsmamba2.runtime.songs.sources import Failure

logger = logging.getLogger(__name__)


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
@song_options
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
    overlap_s: float,
    batch: int,
    backend: EngineOptions,
    tta: str | None,
    jobs: int,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **songs: Any,
) -> None:
    """Separate files, and the audio files in folders; '-' is stdin.

    Each input gives one file a stem, of its own sample rate, channels and length, with its title
    and other tags. The names of written files go to stdout. What fails is listed at the end and
    makes the exit code 1.
    """
    from bsmamba2.cli.infer_jobs import make_plan, print_plan, split_jobs
    from bsmamba2.cli.infer_report import Run, document, summary
    from bsmamba2.runtime.engines import load_engine
    from bsmamba2.runtime.separation.batching import useful_batch
    from bsmamba2.runtime.separation.separator import Separator

    options = SongOptions(**songs)
    run: Run | None = None
    about: dict[str, Any] | None = None
    with contextlib.ExitStack() as resources:
        if options.to_stdout and as_json:
            raise OptionError("stdout takes either the stem or the JSON: leave one of them out.")
        plan = make_plan(inputs, engine, options, resources)
        if dry_run:
            failures = print_plan(
                plan, skip_existing=options.skip_existing, as_json=as_json, quiet=quiet
            )
            ctx.exit(_tell(failures))
        todo, skipped = split_jobs(plan.jobs, options.skip_existing)
        failures = plan.failures
        if todo:
            loaded = load_engine(engine, backend)
            trained = loaded.metadata.provenance.trained
            about = {"path": engine, "trained": trained, **loaded.describe()}
            batch = batch or useful_batch(loaded)
            separator = Separator(loaded, overlap_s=overlap_s, batch=batch, tta=tta)
            _warn_of_weights(engine, loaded)
            show = _Show(quiet=quiet, names=not (as_json or options.to_stdout))
            started = time.perf_counter()
            reports, failed = _separate(separator, todo, plan.output, jobs, show)
            elapsed_s = time.perf_counter() - started
            run = Run(reports=reports, elapsed_s=elapsed_s, jobs=jobs, batch=batch)
            failures += failed
        if as_json:
            click.echo(json.dumps(document(about, run, skipped, failures), indent=2))
        if not quiet:
            click.echo(summary(run, skipped), err=True, nl=False)
        if options.to_stdout and run and run.reports:
            _to_stdout(*run.reports[0].outputs.values())
    ctx.exit(_tell(failures))


def _tell(failures: Sequence[Failure]) -> int:
    """Lists what failed; the exit code."""
    for failure in failures:
        known = failure.source in failure.error
        sentence = f"{'' if known else failure.source + ': '}{failure.error}"
        click.echo(f"Failed: {one_line(sentence)}", err=True)
    return 1 if failures else 0


def _to_stdout(path: Path) -> None:
    """Sends a file, of which nobody may want all."""
    stdout = sys.stdout.buffer
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, stdout, 1 << 20)
        stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())  # for Python's own flush
        raise FileError(f"Cannot write to stdout: {error.strerror}.") from error


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


@dataclass(frozen=True)
class _Show:
    """What is shown of the work."""

    quiet: bool
    names: bool
    """Those of written files, on stdout."""


def _separate(
    separator: Separator, jobs: Sequence[Job], output: OutputFormat, at_once: int, show: _Show
) -> tuple[list[Report], list[Failure]]:
    """Separates the files; a failure ends only its own. Both results are in the files' order."""
    from tqdm import tqdm

    from bsmamba2.runtime.songs.separate_files import separate_files
    from bsmamba2.runtime.songs.sources import Failure

    reports: list[Report] = []
    failures: list[Failure] = []
    with song_bars(show.quiet) as bar:

        @contextlib.contextmanager
        def watch(job: Job) -> Iterator[Callable[[float, float | None], None]]:
            title = job.source.name
            with bar(title) as progress:
                yield functools.partial(progress, title)

        outcomes = separate_files(separator, jobs, output, at_once=at_once, watch=watch)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Exception):
                logger.debug("%s failed", job.name, exc_info=outcome)
                failures.append(Failure(job.name, failure_sentence(outcome, "infer")))
                continue
            reports.append(outcome)
            if show.names:
                with tqdm.external_write_mode():  # without the bars of the others
                    for path in job.files:
                        click.echo(os.fsencode(path))
    return reports, failures
