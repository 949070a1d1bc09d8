"""`bsm parity`: measures how far two engines differ, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from bsmamba2.cli.engine_options import backend_options

if TYPE_CHECKING:
    from bsmamba2.runtime.engines import Engine, EngineOptions


@click.command(
    help="""Compare two engines of one network, stage by stage.

    A and B are .onnx, .plan or .safetensors files, or 'default', the engine in the package. Every
    figure has a limit; those of masks and audio follow from the precisions of A and B.

    \b
    Example:
      bsm parity model.safetensors model.fp16.onnx --audio song.wav

    The exit code is 1 if a figure misses its limit.
    """,
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--audio",
    metavar="FILE",
    help="A song whose loudest chunk both engines separate; a .stem.mp4 also has the true vocals.  "
    "[default: a made-up mixture, the same everywhere]",
)
@backend_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    first: str,
    second: str,
    audio: str | None,
    backend: EngineOptions,
    as_json: bool,
) -> None:
    """Runs `bsm parity`."""
    import json

    from bsmamba2.evaluation.parity import compare_engines
    from bsmamba2.evaluation.reference_excerpt import load_reference_excerpt
    from bsmamba2.runtime.engines import load_engine

    options = {
        path: backend if path.endswith(".safetensors") else replace(backend, precision=None)
        for path in (first, second)
    }
    if backend not in options.values():
        raise click.UsageError(
            "--precision is for .safetensors engines: the precision of others is fixed."
        )
    engines = [load_engine(path, options[path]) for path in (first, second)]
    excerpt = load_reference_excerpt(audio, engines[0].metadata.model.audio)
    figures = compare_engines(engines[0], engines[1], excerpt)
    failed = sum(not figure.passed for figure in figures)
    about = [
        {"file": path, "precision": engine.precision, **engine.describe()}
        for path, engine in zip((first, second), engines, strict=True)
    ]
    if as_json:
        report = {"engines": about, "music": excerpt.name, "passed": not failed}
        report["figures"] = [figure.document() for figure in figures]
        click.echo(json.dumps(report, indent=2))
        ctx.exit(1 if failed else 0)
    for letter, engine in zip("AB", about, strict=True):
        click.echo(f"{letter}  {engine['file']}: {engine['backend']}, {engine['precision']}")
    click.echo(f"   on {excerpt.name}\n")
    for figure in figures:
        sign, verdict = ">=" if figure.least else "<=", "passed" if figure.passed else "FAILED"
        value = f"{figure.value:.4g}"
        click.echo(
            f"{figure.stage:9}  {figure.name:52}  {value:>9}  {sign} {figure.limit:<8.3g}  "
            f"{verdict}"
        )
    click.echo(f"\n{conclusion(failed, len(figures), engines)}")
    ctx.exit(1 if failed else 0)


def conclusion(failed: int, count: int, engines: Sequence[Engine]) -> str:
    """Says how many checks failed, and that the weights differ if both engines name their file."""
    text = f"{failed} of {count} checks failed" if failed else f"All {count} checks passed"
    origins = {engine.metadata.provenance.source_sha256 for engine in engines}
    if len(origins) > 1 and None not in origins:
        text += "; these engines hold different weights"
    return f"{text}."
