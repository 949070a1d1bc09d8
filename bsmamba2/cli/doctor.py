"""`bsm doctor`: what this machine can run and why not."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what this machine can run, and why not.

    Exits with 1 if separation with the engine in the package does not work.
    """
    import json

    from bsmamba2.cli.doctor_checks import examine

    report = examine()
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        for name, value in report.machine.items():
            click.echo(f"{name:13}  {value}")
        for title, checks in report.checks.items():
            click.echo(f"\n{title.upper() if title == 'cuda' else title.capitalize()}")
            for check in checks:
                click.echo(f"  {check.name:16}  {'yes' if check.ok else 'no ':3}  {check.detail}")
        click.echo("\nPackages")
        for name, version in report.packages.items():
            click.echo(f"  {name:16}  {version or '-'}")
        end = "Ready: bsm infer SONG" if report.ok else "The core does not work; see above."
        click.echo(f"\n{end}")
    ctx.exit(0 if report.ok else 1)
