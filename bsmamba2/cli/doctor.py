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
        ctx.exit(0 if report.ok else 1)
    cpus = f"{report.cpus} CPU{'s' if report.cpus > 1 else ''}"
    click.echo(f"bsmamba2 {report.bsmamba2}, Python {report.python}, {report.platform}, {cpus}")
    click.echo(f"NVIDIA driver: {'found' if report.nvidia_driver else 'none'}")
    click.echo(f"ONNX Runtime providers: {', '.join(report.providers) or 'none'}")
    groups = {
        "Core": report.core,
        "Engines": report.engines,
        "CUDA": report.cuda,
        "Training": report.training,
        "Audio files": report.audio,
    }
    for title, checks in groups.items():
        click.echo(f"\n{title}")
        for check in checks:
            click.echo(f"  {check.name:16}  {'yes' if check.ok else 'no ':3}  {check.detail}")
    click.echo("\nPackages")
    for name, version in report.packages.items():
        click.echo(f"  {name:16}  {version or '-'}")
    click.echo(
        f"\n{'Ready: bsm infer SONG' if report.ok else 'The core does not work; see above.'}"
    )
    ctx.exit(0 if report.ok else 1)
