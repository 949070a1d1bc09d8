"""`bsm info`: describes a configuration, a checkpoint or an engine."""

from __future__ import annotations

import click


@click.command(
    help="""Describe an engine, checkpoint or configuration.

    FILE is a .onnx, .safetensors, .plan or .yaml file, or 'default', the engine in the package.
    CONFIG is the name of a configuration in the package: bsmamba2, small or tiny.

    \b
    Examples:
      bsm info default
      bsm info model.onnx --json
    """,
)
@click.argument("name", metavar="FILE|CONFIG")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(name: str, as_json: bool) -> None:
    """Runs `bsm info`."""
    import json

    from bsmamba2.cli.info_record import inspect_file, lines
    from bsmamba2.errors import one_line

    record = inspect_file(name)
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    rows = list(lines(record))
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        click.echo(f"{label:{width}}  {one_line(text)}")
