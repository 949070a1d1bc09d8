"""`bsm doctor`: shows what this machine can run, and what is missing."""

from __future__ import annotations

import click

_LABELS = {"python": "Python", "cpus": "CPUs", "nvidia_driver": "NVIDIA driver"}
_TITLES = {"core": "Separation", "engines": "Engines", "cuda": "CUDA", "audio": "Audio files"}
_WORDS = {True: "found", False: "not found"}


@click.command(
    help="""Show what this machine can run, and what is missing.

    The exit code is 1 if separation with the engine in the package does not work.
    """,
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Runs `bsm doctor`."""
    import json

    from bsmamba2.cli.doctor_checks import examine

    report = examine()
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        for name, value in report.machine.items():
            text = _WORDS[value] if isinstance(value, bool) else value
            click.echo(f"{_LABELS.get(name, name):13}  {text}")
        for title, checks in report.checks.items():
            click.echo(f"\n{_TITLES[title]}")
            for check in checks:
                click.echo(f"  {check.name:16}  {'yes' if check.ok else 'no ':3}  {check.detail}")
        click.echo("\nPackages")
        for name, version in report.packages.items():
            click.echo(f"  {name:16}  {version or 'not installed'}")
        end = "Ready: bsm infer SONG" if report.ok else "Separation does not work here: see above."
        click.echo(f"\n{end}")
    ctx.exit(0 if report.ok else 1)
