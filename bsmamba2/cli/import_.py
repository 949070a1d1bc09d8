"""`bsm import`: converts a checkpoint to a .safetensors file."""

from __future__ import annotations

import click


@click.command(
    name="import",
    help="""Convert a checkpoint to a .safetensors file.

    FILE is a Lightning or MSST checkpoint (.ckpt, .pt, .pth), one of 'bsm train', or a .safetensors
    file of another program. Pickled code is never run: PyTorch's weights-only loader reads the
    file, unknown objects are left out, and a file whose unpickling would call anything else is
    refused.

    \b
    Examples:
      bsm import bs_mamba2_vocals.ckpt -o model.safetensors
      bsm infer --engine model.safetensors song.wav
    """,
)
@click.argument("file", metavar="FILE")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="model.safetensors",
    show_default=True,
    help="The .safetensors file to write; an existing one is replaced.",
)
@click.option(
    "--ema",
    is_flag=True,
    help="Take the moving average (EMA) of the weights, which the authors' optimiser holds; from a "
    "checkpoint of 'bsm train' it is always taken.",
)
@click.option(
    "--config",
    metavar="NAME|FILE",
    help="Configuration of the network.  [default: the one in FILE, otherwise bsmamba2]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(file: str, output: str, ema: bool, config: str | None, as_json: bool) -> None:
    """Runs `bsm import`."""
    import json
    import math
    from dataclasses import asdict
    from pathlib import Path

    from bsmamba2.config.file import load_config
    from bsmamba2.errors import MissingExtraError, OptionError
    from bsmamba2.formats.model_files import file_in_folder
    from bsmamba2.system.files import sha256_file

    source, target = Path(file), Path(output)
    if target.suffix != ".safetensors":
        raise OptionError(f"{output} must end in .safetensors: that is what 'bsm import' writes.")
    if source.exists() and target.exists() and source.samefile(target):
        raise OptionError(f"{output} is the file to import: choose another name with -o.")
    file_in_folder(source)  # now, because importing PyTorch takes seconds
    if config:
        load_config(config)
    try:
        from bsmamba2.checkpoints.foreign import import_foreign
        from bsmamba2.checkpoints.weights import save_weights
    except ModuleNotFoundError as error:
        raise MissingExtraError("'bsm import'", "train") from error

    foreign = import_foreign(source, ema=ema, config=config)
    tensors, metadata = foreign.tensors, foreign.metadata
    save_weights(target, tensors, metadata)

    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    licence = metadata.provenance.licence
    click.echo(f"Read {source}: {foreign.container}.", err=True)
    click.echo(f"{len(tensors)} tensors, {parameters:,} parameters, float32.", err=True)
    if licence == "undeclared":
        click.echo(
            "The licence of these weights is not declared: redistribute only weights of your own.",
            err=True,
        )
    if as_json:
        report = {
            "input": str(source),
            "output": str(target),
            "container": foreign.container,
            "ema": ema,
            "tensors": len(tensors),
            "parameters": parameters,
            "sha256": sha256_file(target),
            "provenance": asdict(metadata.provenance),
        }
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(target)
