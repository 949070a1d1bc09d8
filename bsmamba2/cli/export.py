"""`bsm export`: exports a checkpoint to ONNX, and an ONNX file to a TensorRT plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bsmamba2.cli.headings import HeadedCommand, HeadedOption

if TYPE_CHECKING:
    from bsmamba2.formats.trt_plan import PlanRecord


_MARKS = {"float32": "", "float16": ".fp16", "int8": ".int8"}
"""Part of the default file name before its suffix, by precision."""


@click.command(
    cls=HeadedCommand,
    help="""Export a checkpoint to ONNX, and with --trt to a TensorRT plan.

    MODEL is a .safetensors checkpoint, or the name of a configuration (bsmamba2, small, tiny)
    for random weights, to try speed and set-up. With --trt it may also be an exported .onnx file,
    or 'default', the engine in the package: neither needs PyTorch.

    The new file is compared with PyTorch before it gets its name: with a different mask, nothing
    is written. With --fp16 or --int8 it must also separate music as well as float32 does: the SDR
    may change by at most 0.02 dB in float16, and fall by at most 0.1 dB in int8. The ONNX file of a
    checkpoint is kept beside its plan.

    \b
    Examples:
      bsm export model.safetensors                  # model.onnx
      bsm export model.safetensors --fp16 --trt     # model.fp16.onnx, model.fp16.plan
      bsm export model.onnx --trt                   # model.plan, without PyTorch
    """,
)
@click.argument("model", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The .onnx file to write, or with --trt the .plan file; an existing one is replaced.  "
    "[default: MODEL with that suffix, and .fp16 or .int8 before it]",
)
@click.option(
    "--fp16",
    is_flag=True,
    help="Matrices and products in float16, for GPUs; norms, input and output stay float32.",
)
@click.option(
    "--int8", is_flag=True, help="The large products in int8, for CPUs; the rest stays float32."
)
@click.option(
    "--trt", is_flag=True, help="Also build a TensorRT plan, with its sidecar .plan.json."
)
@click.option(
    "--audio",
    cls=HeadedOption,
    heading="Details of the ONNX file",
    metavar="FILE",
    help="A song whose loudest chunk measures the loss of --fp16 or --int8; a .stem.mp4 also has "
    "the true vocals.  [default: a made-up mixture, the same everywhere]",
)
@click.option(
    "--card",
    metavar="FILE",
    help="A YAML file that describes the weights, for 'bsm info': training_data, recipe, scores "
    "(a list), limits, licence.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Seed of the random weights, if MODEL is a configuration.",
)
@click.option(
    "--builder",
    cls=HeadedOption,
    heading="Details of the TensorRT plan, with --trt",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]),
    help="What builds the plan: TensorRT on the GPU that will run it, or TensorRT-RTX on any "
    "machine.  [default: auto]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="The largest number of chunks that the plan takes at a time.  [default: 4]",
)
@click.option(
    "--frames",
    metavar="N|A:B:C",
    help="Frames of a chunk: N, or from A to C and fastest at B.  [default: those of the "
    "network's own chunks]",
)
@click.option(
    "--plugin",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The plugin library, libbsm_trt_plugin.so.  [default: the one of 'bsm plugin build', "
    "which is built if missing]",
)
@click.option(
    "--arch",
    metavar="NAMES",
    help="GPUs to build the plugin for, as in 'bsm plugin build'.  [default: those of this "
    "machine, or all]",
)
@click.option(
    "--json",
    "as_json",
    cls=HeadedOption,
    heading="Report",
    is_flag=True,
    help="Print one JSON document on stdout.",
)
def command(
    model: str,
    output: str | None,
    fp16: bool,
    int8: bool,
    trt: bool,
    audio: str | None,
    card: str | None,
    seed: int,
    as_json: bool,
    **plan: Any,
) -> None:
    """Runs `bsm export`."""
    from bsmamba2.errors import BsmError, ExportError, MissingExtraError
    from bsmamba2.export.plan.options import PlanOptions
    from bsmamba2.export.to_plan import export_plan
    from bsmamba2.models.source import check_source

    plan = {name: value for name, value in plan.items() if value is not None}
    _check_usage(model, fp16=fp16, int8=int8, trt=trt, audio=audio, card=card, plan=plan)
    is_onnx = _is_onnx(model)
    if not is_onnx:
        check_source(model)  # now, because importing PyTorch takes seconds
    precision = "float16" if fp16 else "int8" if int8 else "float32"
    suffix = _MARKS[precision] + (".plan" if trt else ".onnx")
    target = Path(output) if output else Path(model).with_suffix(suffix)
    fits = target.suffix == ".plan" or (target.suffix == ".onnx" and not is_onnx)
    if trt and not fits:
        raise ExportError(f"{target} must end in .plan.")
    options = PlanOptions(**plan)
    onnx = model if is_onnx else str(target.with_suffix(".onnx") if trt else target)
    written, record = [], None
    if not is_onnx:
        try:
            from bsmamba2.export.to_onnx import export_onnx
        except ModuleNotFoundError as error:
            raise MissingExtraError("'bsm export' of a checkpoint", "export") from error
        export_onnx(
            model, onnx, seed=seed, card=card, precision=precision, excerpt=audio, report=_say
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


def _is_onnx(model: str) -> bool:
    return model == "default" or Path(model).suffix == ".onnx"


def _check_usage(
    model: str,
    *,
    fp16: bool,
    int8: bool,
    trt: bool,
    audio: str | None,
    card: str | None,
    plan: Mapping[str, Any],
) -> None:
    """Raises UsageError for options that exclude each other or do not apply to the model."""
    is_onnx, lower = _is_onnx(model), fp16 or int8
    for is_wrong, sentence in (
        (fp16 and int8, "--fp16 and --int8 exclude each other: export one file for each."),
        (audio and not lower, "--audio measures a lower precision: add --fp16 or --int8."),
        (trt and int8, "int8 is for CPUs: TensorRT takes float32 or --fp16."),
        (
            is_onnx and lower,
            f"The precision of {model} is fixed: export the .safetensors checkpoint that it was "
            "made from, on a machine with PyTorch.",
        ),
        (
            is_onnx and not trt,
            f"{model} is an ONNX engine already: add --trt to build a plan from it; a lower "
            "precision is exported from a .safetensors checkpoint.",
        ),
        (is_onnx and card, "--card goes into an ONNX file that is written, not into a plan."),
        (plan and not trt, f"--{next(iter(plan), '')} applies to a plan: add --trt."),
        (
            "plugin" in plan and "arch" in plan,
            "--plugin names a library that is built already: leave --arch out.",
        ),
    ):
        if is_wrong:
            raise click.UsageError(sentence)


def _report(onnx: str, target: Path, record: PlanRecord | None) -> str:
    """Returns the JSON document on an ONNX file, and on the plan that was built from it."""
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
