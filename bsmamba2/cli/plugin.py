"""`bsm plugin`: builds the CUDA libraries."""

from __future__ import annotations

import click


@click.group(name="plugin", help="Build the CUDA scan and the TensorRT plugin.")
def command() -> None:
    """Runs `bsm plugin`."""


@command.command(
    help="""Compile the CUDA libraries and print their paths.

    They are kept in the user's cache folder, and built again only if the sources, the compilers
    or the options change. Needs nvcc and a C++ compiler, but no GPU; the TensorRT plugin also needs
    TensorRT's headers.

    \b
    Examples:
      bsm plugin build                # for the GPUs of this machine
      bsm plugin build --arch all     # on a machine without a GPU
    """,
)
@click.option(
    "--arch",
    default="native",
    show_default=True,
    metavar="NAMES",
    help="GPUs to build for: native (those of this machine), all, or a list such as 80,90 or "
    "90+PTX.",
)
@click.option("--no-tensorrt", is_flag=True, help="Build only the scan library.")
@click.option(
    "--tensorrt-include",
    metavar="DIR",
    help="The folder of NvInferRuntime.h.  [default: TENSORRT_INCLUDE_DIR, otherwise searched for]",
)
@click.option("--force", is_flag=True, help="Build again what is built already.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compilers at a time.  [default: one per CPU]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def build(
    arch: str,
    no_tensorrt: bool,
    tensorrt_include: str | None,
    force: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Runs `bsm plugin build`."""
    import json
    from pathlib import Path

    from bsmamba2.plugins.build import build_libraries
    from bsmamba2.system.files import sha256_file

    if no_tensorrt and tensorrt_include:
        raise click.UsageError("--no-tensorrt and --tensorrt-include exclude each other.")
    libraries = build_libraries(
        architectures=arch,
        plugin=not no_tensorrt,
        include_dir=Path(tensorrt_include) if tensorrt_include else None,
        jobs=jobs,
        force=force,
        report=lambda line: click.echo(line, err=True),
    )
    built = {"scan": libraries.scan, "plugin": libraries.plugin}
    if as_json:
        files = {
            name: path and {"path": str(path), "sha256": sha256_file(path)}
            for name, path in built.items()
        }
        record = {"architectures": list(libraries.architectures), **files}
        click.echo(json.dumps(record, indent=2))
        return
    for path in filter(None, built.values()):
        click.echo(path)
