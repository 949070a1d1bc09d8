"""`bsm export`: a checkpoint becomes an ONNX engine, and that a TensorRT plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bsmamba2.formats.trt_plan import PlanRecord


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The .onnx file to write, or with --trt the .plan file.  [default: MODEL with that "
    "suffix]",
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
@click.option(
    "--fp16",
    "precision",
    flag_value="float16",
    help="Matrices and products in float16; norms, input and output in float32.",
)
@click.option(
    "--int8",
    "precision",
    flag_value="int8",
    help="The big products in int8, for CPUs; all else in float32.",
)
@click.option(
    "--audio",
    metavar="FILE",
    help="A song, whose loudest chunk tells what --fp16 or --int8 costs; of a .stem.mp4 the true "
    "voice counts.  [default: a made-up mixture, the same everywhere]",
)
@click.option(
    "--trt", is_flag=True, help="Build a TensorRT plan, too, with its sidecar .plan.json."
)
@click.option(
    "--builder",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]),
    help="What builds the plan; TensorRT needs the GPU that the plan is for, TensorRT-RTX none.  "
    "[default: auto]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="The most chunks that the plan takes at a time.  [default: 4]",
)
@click.option(
    "--frames",
    metavar="N|A:B:C",
    help="Frames of a chunk: N, or from A to C and fastest at B.  [default: the network's own "
    "chunks]",
)
@click.option(
    "--plugin",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="libbsm_trt_plugin.so.  [default: that of 'bsm plugin build', built when absent]",
)
@click.option(
    "--arch",
    metavar="NAMES",
    help="GPUs to build the plugin for, as in 'bsm plugin build'.  [default: those here, or all]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON report.")
def command(
    model: str,
    output: str | None,
    seed: int,
    card: str | None,
    precision: str | None,
    audio: str | None,
    trt: bool,
    as_json: bool,
    **plan: Any,
) -> None:
    """Export a .safetensors checkpoint to ONNX, and with --trt to a TensorRT plan.

    MODEL is the checkpoint, or the name of a configuration (bsmamba2, small, tiny) for random
    weights, to test speed and set-up. The file is compared with PyTorch in ONNX Runtime before it
    gets its name; when their masks differ, nothing is written. With --fp16 or --int8 it must also
    separate music as float32 does: the SDR may change by 0.02 dB in float16, fall by 0.1 dB in
    int8.

    With --trt, MODEL may also be an exported .onnx file, or 'default', the engine in the package,
    for machines without PyTorch. The ONNX file of a checkpoint is kept beside the plan.
    """
    from bsmamba2.errors import BsmError, ExportError, MissingExtraError
    from bsmamba2.export.plan.options import PlanOptions
    from bsmamba2.export.to_plan import export_plan

    is_onnx = model == "default" or Path(model).suffix == ".onnx"
    plan = {name: value for name, value in plan.items() if value is not None}
    target = Path(output) if output else Path(model).with_suffix(".plan" if trt else ".onnx")
    fits = target.suffix == ".plan" or (target.suffix == ".onnx" and not is_onnx)
    for is_wrong, sentence in (
        (audio and not precision, "--audio is heard in a lower precision: add --fp16 or --int8."),
        (trt and precision == "int8", "int8 is for CPUs: TensorRT takes float32 or --fp16."),
        (
            is_onnx and precision,
            f"{model} has its precision already: export the .safetensors checkpoint that it was "
            "made of, on a machine with PyTorch.",
        ),
        (
            is_onnx and not trt,
            f"{model} is an ONNX engine already: add --trt to build a plan of it.",
        ),
        (is_onnx and card, "--card goes into an ONNX file that is written, not into a plan."),
        (plan and not trt, f"--{next(iter(plan), '')} is about a plan: add --trt."),
        (trt and not fits, f"{target} must end in .plan."),
    ):
        if is_wrong:
            raise ExportError(sentence)
    options = PlanOptions(**plan)
    onnx = model if is_onnx else str(target.with_suffix(".onnx") if trt else target)
    written, record = [], None
    if not is_onnx:
        try:
            from bsmamba2.export.to_onnx import export_onnx
        except ModuleNotFoundError as error:
            raise MissingExtraError("'bsm export' of a checkpoint", "export") from error
        export_onnx(
            model,
            onnx,
            seed=seed,
            card=card,
            precision=precision or "float32",
            excerpt=audio,
            report=_say,
        )
        written.append(onnx)
    if trt:
        target = target.with_suffix(".plan")
        try:
            record = export_plan(onnx, target, options, report=_say)
        except BsmError:
            for path in written:
                _say(f"{path} is written and kept.")
            raise
        written.append(str(target))
    click.echo(_report(onnx, target, record) if as_json else "\n".join(written))


def _report(onnx: str, target: Path, record: PlanRecord | None) -> str:
    """What --json says of an ONNX file, and of the plan that was built of it."""
    import json
    from dataclasses import asdict

    from bsmamba2.cli.info_record import inspect_file
    from bsmamba2.formats.trt_plan import sidecar_path

    found = inspect_file(onnx)
    names = ("sha256", "precision", "parity", "checks")
    report = {"output": found["file"]} | {name: found[name] for name in names}
    if record:
        files = {"output": str(target), "sidecar": str(sidecar_path(target))}
        report["plan"] = files | asdict(record)
    return json.dumps(report, indent=2)


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)
