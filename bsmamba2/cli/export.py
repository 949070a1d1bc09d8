"""`bsm export`: a checkpoint becomes an ONNX engine."""

from __future__ import annotations

import click


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The .onnx file to write.  [default: MODEL with the suffix .onnx]",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Of the random weights, when MODEL is a configuration.",
)
@click.option(
    "--card",
    metavar="FILE",
    help="A YAML file that says what the weights are: training_data, recipe, scores (a list), "
    "limits, licence. 'bsm info' shows it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON report.")
def command(model: str, output: str | None, seed: int, card: str | None, as_json: bool) -> None:
    """Export a .safetensors checkpoint to ONNX.

    MODEL is the checkpoint, or the name of a configuration (bsmamba2, small, tiny) for random
    weights, to test speed and set-up. The file is compared with PyTorch in ONNX Runtime before it
    gets its name; when their masks differ, nothing is written.
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from bsmamba2.artefact import load_card
    from bsmamba2.errors import MissingExtraError
    from bsmamba2.files import sha256_file

    try:
        from bsmamba2.export.export_model import export_onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("'bsm export'", "export") from error

    target = Path(output) if output else Path(model).with_suffix(".onnx")
    artefact = export_onnx(
        model,
        target,
        seed=seed,
        card=load_card(card) if card else None,
        report=lambda s: click.echo(s, err=True),
    )
    if not artefact.provenance.trained:
        click.echo("Random weights: the stems of this engine are no separation.", err=True)
    if as_json:
        record = {
            "output": str(target),
            "sha256": sha256_file(target),
            "parity": [asdict(figure) for figure in artefact.parity],
        }
        click.echo(json.dumps(record, indent=2))
    else:
        click.echo(target)
