"""`bsm infer`: separates files and folders."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from bsmamba2.cli.engine_options import engine_options, song_bars
from bsmamba2.errors import BsmError, failure_sentence

if TYPE_CHECKING:
    from bsmamba2.cli.infer_report import Run
    from bsmamba2.runtime.engines import Engine
    from bsmamba2.runtime.naming import Failure, Job
    from bsmamba2.runtime.separate_files import Report
    from bsmamba2.runtime.separator import Separator
    from bsmamba2.runtime.writing import OutputFormat

logger = logging.getLogger(__name__)


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path())
@click.option(
    "--engine",
    default="default",
    show_default=True,
    metavar="FILE",
    help="A .onnx, .plan or .safetensors file; 'default' is the one in the package.",
)
@click.option(
    "-o",
    "--out",
    default="out/{track}/{stem}.{ext}",
    show_default=True,
    metavar="NAME",
    help="Names of the files to write.",
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
@engine_options(overlap_s=1.0, auto_batch=True)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Songs at a time; they share the engine. Pays where the engine is quick, as on a GPU.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@click.pass_context
def command(
    ctx: click.Context,
    inputs: tuple[str, ...],
    engine: str,
    out: str,
    stems: str | None,
    format_name: str | None,
    depth: str | None,
    overlap_s: float,
    batch: int,
    threads: int | None,
    device: str,
    precision: str | None,
    allow_host_code: bool,
    jobs: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Separate files, and the audio files in folders.

    Each input gives one file a stem, of its own sample rate, channels and length. The names of
    written files go to stdout. What fails is listed at the end and makes the exit code 1.
    """
    from bsmamba2.cli.infer_report import Run, document
    from bsmamba2.runtime.batching import useful_batch
    from bsmamba2.runtime.engines import load_engine
    from bsmamba2.runtime.naming import OutputTemplate, find_inputs, plan_outputs
    from bsmamba2.runtime.separator import Separator
    from bsmamba2.runtime.writing import OutputFormat

    template = OutputTemplate(out)
    output = OutputFormat(template.format_name(format_name), depth)
    sources, failures = find_inputs(inputs)
    run: Run | None = None
    about: dict[str, Any] | None = None
    if sources:
        loaded = load_engine(
            engine,
            device=device,
            threads=threads,
            precision=precision,
            allow_host_code=allow_host_code,
        )
        trained = loaded.artefact.provenance.trained
        about = {"path": engine, "trained": trained, **loaded.describe()}
        batch = batch or useful_batch(loaded)
        separator = Separator(loaded, overlap_s=overlap_s, batch=batch)
        chosen = _choose_stems(stems, separator.stems)
        songs, refused = plan_outputs(sources, template, chosen, output.name)
        if songs:
            _warn_of_weights(engine, loaded)
        started = time.perf_counter()
        reports, failed = _separate(
            separator, songs, output, at_once=jobs, as_json=as_json, quiet=quiet
        )
        elapsed_s = time.perf_counter() - started
        run = Run(reports=reports, elapsed_s=elapsed_s, jobs=jobs, batch=batch)
        failures += refused + failed
    if as_json:
        click.echo(json.dumps(document(about, run, failures), indent=2))
    if run and run.reports and not quiet:
        click.echo(run.summary(), err=True)
    for failure in failures:
        known = failure.source in failure.error
        click.echo(f"Failed: {'' if known else failure.source + ': '}{failure.error}", err=True)
    ctx.exit(1 if failures else 0)


def _warn_of_weights(name: str, engine: Engine) -> None:
    """One line for weights that are not what a person may take them for."""
    if not engine.artefact.provenance.trained:
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


def _choose_stems(names: str | None, offered: Sequence[str]) -> list[str]:
    """The stems of --stems, each once, in the order given."""
    if names is None:
        return list(offered)
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
    from bsmamba2.config_file import shown

    unknown = [name for name in chosen if name not in offered]
    if unknown:
        raise BsmError(f"No stem {shown(unknown[0])}: this engine gives {' and '.join(offered)}.")
    return chosen


def _separate(
    separator: Separator,
    jobs: Sequence[Job],
    output: OutputFormat,
    *,
    at_once: int,
    as_json: bool,
    quiet: bool,
) -> tuple[list[Report], list[Failure]]:
    """Separates the files; a failure ends only its own. Both results are in the files' order."""
    from tqdm import tqdm

    from bsmamba2.runtime.naming import Failure
    from bsmamba2.runtime.separate_files import separate_files

    reports: list[Report] = []
    failures: list[Failure] = []
    with song_bars(quiet) as bar:

        @contextlib.contextmanager
        def watch(job: Job) -> Iterator[Callable[[float, float | None], None]]:
            with bar(job.source.name) as progress:
                yield functools.partial(progress, job.source.name)

        outcomes = separate_files(separator, jobs, output, at_once=at_once, watch=watch)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Exception):
                logger.debug("%s failed", job.source, exc_info=outcome)
                failures.append(Failure(str(job.source), failure_sentence(outcome, "infer")))
                continue
            reports.append(outcome)
            if not as_json:
                with tqdm.external_write_mode():  # without the bars of the others
                    for path in outcome.outputs.values():
                        click.echo(os.fsencode(path))
    return reports, failures
