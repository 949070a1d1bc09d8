"""`bsm export`: a checkpoint becomes an ONNX engine, and that a TensorRT plan."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bsmamba2.export.plan.options import PlanOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def plan_options(command: Command) -> Command:
    """Adds --trt and the options that only go with it; those are None where they are not given."""
    options = (
        click.option(
            "--trt", is_flag=True, help="Build a TensorRT plan, too, with its sidecar .plan.json."
        ),
        click.option(
            "--builder",
            type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]),
            help="What builds the plan; TensorRT needs the GPU that the plan is for, TensorRT-RTX "
            "none.  [default: auto]",
        ),
        click.option(
            "--batch",
            type=click.IntRange(min=1),
            metavar="N",
            help="The most chunks that the plan takes at a time.  [default: 4]",
        ),
        click.option(
            "--frames",
            metavar="N|A:B:C",
            help="Frames of a chunk: N, or from A to C and fastest at B.  [default: the network's "
            "own chunks]",
        ),
        click.option(
            "--plugin",
            metavar="FILE",
            help="libbsm_trt_plugin.so.  [default: that of 'bsm plugin build', built when absent]",
        ),
        click.option(
            "--arch",
            metavar="NAMES",
            help="GPUs to build the plugin for, as in 'bsm plugin build'.  [default: those here, "
            "or all]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


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
@plan_options
@click.option(
    "--triton",
    metavar="DIR",
    help="Add the plan to this model repository of Triton Inference Server, under the plan's name. "
    "With --trt, or for a MODEL that is a plan.",
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
    triton: str | None,
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

    With --triton DIR, MODEL may also be a .plan file.
    """
    import json

    from bsmamba2.errors import ExportError

    if Path(model).suffix == ".plan":
        _check_plan_alone(
            model, triton, [output, card, precision, audio, *([trt] if trt else []), *plan.values()]
        )
        report = _serve(Path(model), str(triton))
        click.echo(json.dumps(report, indent=2) if as_json else report["triton"])
        return
    if triton and not trt:
        raise click.UsageError("--triton is about a plan: add --trt, or name a plan.")
    if audio and not precision:
        raise click.UsageError(
            "--audio is what a lower precision is heard on: add --fp16 or --int8."
        )
    if trt and precision == "int8":
        raise click.UsageError("int8 is for CPUs: TensorRT takes float32 or --fp16.")
    exported = model == "default" or Path(model).suffix == ".onnx"
    if exported and precision:
        raise ExportError(
            f"{model} has its precision already: export the .safetensors checkpoint that it was "
            "made of, on a machine with PyTorch."
        )
    if exported and not trt:
        raise ExportError(f"{model} is an ONNX engine already: add --trt to build a plan of it.")
    if exported and card:
        raise click.UsageError("--card goes into an ONNX file that is written, not into a plan.")
    options = _plan_options(trt, plan)
    onnx, target = _targets(model, output, exported=exported, trt=trt)
    if options and triton:
        _check_triton(target, options, Path(triton))
    report = {} if exported else _export(model, onnx, seed, card, precision or "float32", audio)
    written = [] if exported else [onnx]
    if options:
        with _telling_what_is_kept(written):
            report |= _build(model if exported else onnx, target, options)
        if triton:
            with _telling_what_is_kept([*written, target]):
                report |= _serve(target, triton)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for path in written + ([target] if trt else []):
        click.echo(path)
    if triton:
        click.echo(report["triton"])


def _plan_options(trt: bool, values: dict[str, Any]) -> PlanOptions | None:
    """The options of the plan; None without --trt."""
    given = {name: value for name, value in values.items() if value is not None}
    if not trt:
        if given:
            name = next(iter(given)).replace("_", "-")
            raise click.UsageError(f"--{name} is about a plan: add --trt.")
        return None
    from bsmamba2.export.plan.options import PlanOptions, read_frames

    plugin, frames = given.get("plugin"), given.get("frames")
    return PlanOptions(
        builder=given.get("builder", "auto"),
        max_batch=given.get("batch", PlanOptions.max_batch),
        frames=read_frames(frames) if frames else None,
        plugin=Path(plugin) if plugin else None,
        architectures=given.get("arch"),
    )


def _targets(model: str, output: str | None, *, exported: bool, trt: bool) -> tuple[Path, Path]:
    """The .onnx and the .plan file to write; with --trt, --output may name either."""
    from bsmamba2.errors import ExportError

    path = Path(output) if output else Path(model).with_suffix(".plan" if trt else ".onnx")
    if trt and path.suffix not in ([".plan"] if exported else [".plan", ".onnx"]):
        raise ExportError(f"{path} must end in .plan.")
    return (path.with_suffix(".onnx") if trt else path), path.with_suffix(".plan")


def _export(
    model: str, target: Path, seed: int, card: str | None, precision: str, audio: str | None
) -> dict[str, Any]:
    """Writes the ONNX file; what --json says of it."""
    from bsmamba2.errors import MissingExtraError
    from bsmamba2.formats.metadata import load_card

    try:
        from bsmamba2.export.export_model import export_onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("'bsm export' of a checkpoint", "export") from error

    metadata = export_onnx(
        model,
        target,
        seed=seed,
        card=load_card(card) if card else None,
        precision=precision,
        excerpt=audio,
        report=_say,
    )
    if not metadata.provenance.trained:
        _say("Random weights: the stems of this engine are no separation.")
    return _onnx_report(target)


def _build(source: str | Path, target: Path, options: PlanOptions) -> dict[str, Any]:
    """Writes the plan; what --json says of it and of the ONNX file that it is built from."""
    from dataclasses import asdict

    from bsmamba2.export.plan.build import build_plan
    from bsmamba2.formats.trt_plan import sidecar_path

    record = build_plan(source, target, options, report=_say)
    if str(source) == "default":
        from bsmamba2.runtime.engines import default_engine_path

        source = default_engine_path()
    files = {"output": str(target), "sidecar": str(sidecar_path(target))}
    return _onnx_report(Path(source)) | {"plan": files | asdict(record)}


def _check_plan_alone(model: str, triton: str | None, others: list[Any]) -> None:
    """A plan is finished: the only thing to do with one is to put it into a repository."""
    if not triton or any(value is not None for value in others):
        raise click.UsageError(f"{model} is built already: it goes with --triton DIR only.")


def _check_triton(target: Path, options: PlanOptions, repository: Path) -> None:
    """Refuses before a long export and build what would be refused after them."""
    from bsmamba2.export.plan.builder import choose_builder
    from bsmamba2.export.plan.triton import check_builder, check_target

    check_target(repository, target.stem)
    check_builder(target, choose_builder(options.builder).name)


@contextlib.contextmanager
def _telling_what_is_kept(written: list[Path]) -> Iterator[None]:
    """Says of finished files that they stay when the next step fails."""
    from bsmamba2.errors import BsmError

    try:
        yield
    except BsmError:
        for path in written:
            click.echo(f"{path} is written and kept.", err=True)
        raise


def _serve(plan: Path, folder: str) -> dict[str, Any]:
    """Writes the plan into a model repository; what --json says of it."""
    from bsmamba2.export.plan.triton import write_triton_repository

    return {"triton": str(write_triton_repository(plan, Path(folder), name=plan.stem, report=_say))}


def _onnx_report(path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from bsmamba2.formats.metadata import parse_metadata
    from bsmamba2.formats.onnx_file import read_onnx_file
    from bsmamba2.system.files import sha256_file

    metadata = parse_metadata(read_onnx_file(path).metadata, path)
    return {
        "output": str(path),
        "sha256": sha256_file(path),
        "precision": metadata.precision,
        "parity": [asdict(figure) for figure in metadata.parity],
        "checks": [asdict(check) for check in metadata.checks],
    }


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)
