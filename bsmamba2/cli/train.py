"""`bsm train`: trains a network, or goes on with a run."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bsmamba2.errors import MissingExtraError

if TYPE_CHECKING:
    from bsmamba2.training.logs import Listener, Record
    from bsmamba2.training.train import Outcome


@click.command()
@click.option(
    "--config",
    "config_name",
    default="bsmamba2",
    show_default=True,
    metavar="NAME",
    help="A configuration of the package, or a YAML file.",
)
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder of songs as MUSDB18-HQ has them.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of the run; where it holds a checkpoint, the run goes on from there.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Changes the configuration; may be repeated.",
)
@click.option(
    "--start",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Fine-tune the weights of a .safetensors checkpoint.  [default: random weights]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the songs' salient parts are remembered.  [default: beside the songs]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the network is trained.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
@click.option(
    "--allow-config-change",
    is_flag=True,
    help="Resume although configuration, songs or number of processes differ.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@click.pass_context
def command(
    ctx: click.Context,
    config_name: str,
    data: Path,
    out: Path,
    assignments: tuple[str, ...],
    start: Path | None,
    cache: Path | None,
    device: str,
    threads: int | None,
    allow_config_change: bool,
    quiet: bool,
) -> None:
    """Train a network on a folder of songs.

    RUN gets last.ckpt, the best checkpoints, log.jsonl, TensorBoard's files, and the moving
    average of the weights as ema.safetensors and best.safetensors, for 'bsm infer --engine' and
    'bsm export'. Called again, it goes on where it was. Ctrl-C saves first. Several GPUs:
    torchrun --nproc-per-node N --no-python bsm train ...
    """
    from bsmamba2.config.file import load_config, override_config

    try:
        from bsmamba2.training.train import train
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise MissingExtraError("Training", "train") from error

    # PyTorch says once that its fused norm does not take bf16 inputs with float32 weights.
    warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
    config = override_config(load_config(config_name), assignments)
    with _bar(quiet) as listener:
        outcome = train(
            config,
            data,
            out,
            start=start,
            cache=cache,
            device=device,
            threads=threads,
            allow_config_change=allow_config_change,
            listener=listener,
        )
    if outcome.is_first and not quiet:
        click.echo(_summary(outcome, out), err=True)
    ctx.exit(128 + outcome.stopped_by if outcome.stopped_by else 0)


@contextlib.contextmanager
def _bar(quiet: bool) -> Iterator[Listener]:
    """A progress bar in steps, on stderr if that is a terminal; a line for each validation."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    bar = tqdm(unit="step", dynamic_ncols=True, disable=quiet or None)

    def say(sentence: str) -> None:
        if not quiet:
            bar.write(sentence, file=sys.stderr)

    def listen(record: Record) -> None:
        kind, step = record["kind"], record["step"]
        if kind in ("started", "resumed"):
            bar.total, bar.initial, bar.n = record["total"], step, step
            bar.refresh()
        if kind == "resumed":
            say(f"Resumed at step {step} of {record['total']}.")
            for change in record["changes"]:
                say(f"Changed: {change}")
        elif kind == "step":
            bar.set_postfix_str(
                f"loss {record['loss']:.4f}, {record['step_s']:.2f} s a step, "
                f"{100 * record['data_wait_share']:.0f} % waiting for data",
                refresh=False,
            )
            bar.update(step - bar.n)
        elif kind == "validation":
            say(
                f"Step {step}: uSDR {record['usdr']:.2f} dB "
                f"(the mixture's own: {record['mixture_usdr']:.2f} dB)"
            )

    with bar, logging_redirect_tqdm():
        yield listen


def _summary(outcome: Outcome, out: Path) -> str:
    best = ""
    if outcome.best is not None:
        best = f"; best uSDR {outcome.best[1]:.2f} dB at step {outcome.best[0]}"
    where = f"{outcome.step} of {outcome.total} steps{best}"
    if outcome.stopped_by:
        return f"Stopped and saved after {where}: the same command goes on."
    return f"Trained {where}: {out / 'best.safetensors'}"
