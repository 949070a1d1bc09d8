"""`bsm parity`: how far two engines are from each other, stage by stage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from bsmamba2.cli.engine_options import backend_options

if TYPE_CHECKING:
    from bsmamba2.evaluation.parity import Figure
    from bsmamba2.runtime.engines import Engine, EngineOptions


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--audio",
    metavar="FILE",
    help="A song, of which the loudest chunk is heard; of a .stem.mp4 the true voice, too.  "
    "[default: a made-up mixture, the same everywhere]",
)
@backend_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
    """Compare two engines of one network, stage by stage.

    A and B are .onnx, .plan or .safetensors files, or 'default' for the engine in the package.
    Every figure has a limit, which for masks and sound follows from the precisions of the two; the
    exit code is 1 when one is missed.
    """
    import json

    from bsmamba2.evaluation.parity import check_same_network, compare_engines, document
    from bsmamba2.evaluation.reference_excerpt import load_reference_excerpt

    if backend.precision and not any(f.endswith(".safetensors") for f in (first, second)):
        raise click.UsageError("--precision is of a .safetensors engine: others have theirs.")
    one, other = (_load(path, backend) for path in (first, second))
    check_same_network(one.metadata, other.metadata)
    excerpt = load_reference_excerpt(audio, one.metadata.model.audio)
    engines = [
        {"file": path, "precision": engine.precision, **engine.describe()}
        for path, engine in ((first, one), (second, other))
    ]
    if not as_json:
        for letter, engine in zip("AB", engines, strict=True):
            click.echo(f"{letter}  {engine['file']}: {engine['backend']}, {engine['precision']}")
        click.echo(f"   on {excerpt.name}\n")
    figures = []
    for figure in compare_engines(one, other, excerpt):
        figures.append(figure)
        if not as_json:
            click.echo(_row(figure))
    passed = all(figure.passed for figure in figures)
    if as_json:
        report = {"engines": engines, "music": excerpt.name, "passed": passed}
        click.echo(json.dumps(report | {"figures": document(figures)}, indent=2))
    ctx.exit(0 if passed else 1)


def _load(path: str, options: EngineOptions) -> Engine:
    from bsmamba2.runtime.engines import load_engine

    if not path.endswith(".safetensors"):
        options = replace(options, precision=None)
    return load_engine(path, options)


def _row(figure: Figure) -> str:
    sign, verdict = (">=" if figure.least else "<="), ("passed" if figure.passed else "FAILED")
    number = f"{figure.value:.4g}"
    return (
        f"{figure.stage:9}  {figure.name:52}  {number:>9}  {sign} {figure.limit:<8.3g}  {verdict}"
    )
