"""`bsm train`: trains a network, or continues a run."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bsmamba2.cli.headings import HeadedCommand, HeadedOption
from bsmamba2.errors import CheckpointError, MissingExtraError, OptionError, quoted

if TYPE_CHECKING:
    from bsmamba2.training.logs import Listener, Record
    from bsmamba2.training.train import Outcome

_STOPPING = (
    "Stopping after this step; press Ctrl-C again to stop at once (the run then continues from its "
    "last checkpoint)."
)


@click.command(
    cls=HeadedCommand,
    help="""Train a network on a folder of songs.

    RUN gets last.ckpt, the best checkpoints, log.jsonl, TensorBoard's files, and the moving
    average of the weights as ema.safetensors and best.safetensors, for 'bsm infer --engine' and
    'bsm export'. The same command continues a run that was interrupted.

    \b
    Examples:
      bsm train --data MUSDB18-HQ --out run
      bsm train --config small --data songs --out run --set training.max_steps=500
      torchrun --nproc-per-node 2 --no-python bsm train --data MUSDB18-HQ --out run    # two GPUs

    Ctrl-C and SIGTERM save a checkpoint first; the exit codes are then 130 and 143.
    """,
)
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder of songs in the layout of MUSDB18-HQ.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of the run; if it holds a checkpoint, the run continues from there.",
)
@click.option(
    "--config",
    "config_name",
    default="bsmamba2",
    show_default=True,
    metavar="NAME",
    help="A configuration of the package (bsmamba2, small, tiny), or a YAML file.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change a value of the configuration; may be repeated.",
)
@click.option(
    "--start",
    cls=HeadedOption,
    heading="Start and continuation",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .safetensors checkpoint to fine-tune.  [default: start from random weights]",
)
@click.option(
    "--allow-config-change",
    is_flag=True,
    help="Continue a run even if the configuration, the songs or the number of processes differ.",
)
@click.option(
    "--device",
    cls=HeadedOption,
    heading="Machine and output",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the network is trained.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="CPU threads, at most the cores that this process may use.  [default: one for each of "
    "them; in a run that continues, as before]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the positions of the salient segments are kept.  [default: beside the songs]",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary.")
@click.pass_context
def command(
    ctx: click.Context,
    data: Path,
    out: Path,
    config_name: str,
    assignments: tuple[str, ...],
    start: Path | None,
    allow_config_change: bool,
    device: str,
    threads: int | None,
    cache: Path | None,
    quiet: bool,
) -> None:
    """Runs `bsm train`."""
    from bsmamba2.config.file import load_config, override_config
    from bsmamba2.data.tracks import check_data_folder

    # Importing PyTorch takes seconds: find wrong names first.
    config = override_config(load_config(config_name), assignments)
    check_data_folder(data)
    if out.is_file():
        raise OptionError(f"{out} is a file: name a folder, such as {_run_of(out) or 'run'}.")
    if start is not None:
        _check_start(start)
    try:
        from bsmamba2.training.train import train
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise MissingExtraError("Training", "train") from error

    # PyTorch warns once that its fused norm does not take bf16 inputs with float32 weights.
    warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
    with _bar(quiet) as (listener, say):
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
            report=say,
            on_stop=(lambda: None) if quiet else _tell_stopping,
        )
    if outcome.is_first and not quiet:
        click.echo(_summary(outcome, out), err=True)
    ctx.exit(128 + outcome.stopped_by if outcome.stopped_by else 0)


def _check_start(start: Path) -> None:
    """Refuses what has no weights of ours; a checkpoint to continue from is no start."""
    from bsmamba2.formats.model_files import model_file

    try:
        model_file(start)
    except CheckpointError as error:
        if run := _run_of(start):
            raise CheckpointError(
                f"{error} To continue its run: leave --start out, and name '--out {quoted(run)}'."
            ) from error
        raise


def _run_of(checkpoint: Path) -> Path | None:
    """Returns the folder of the run that wrote a checkpoint, `last.ckpt` or `best/step-N.ckpt`."""
    folders = [checkpoint.parent, checkpoint.parent.parent]
    return next((folder for folder in folders if (folder / "last.ckpt").is_file()), None)


@contextlib.contextmanager
def _bar(quiet: bool) -> Iterator[tuple[Listener, Callable[[str], None]]]:
    """Shows progress in steps, on stderr if that is a terminal, and a line for each validation.

    Yields the listener, and a function that prints a sentence above the bar.
    """
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
                f"loss {record['loss']:.4f}, {record['step_s']:.2f} s per step, "
                f"{record['data_wait_share']:.0%} waiting for data",
                refresh=False,
            )
            bar.update(step - bar.n)
        elif kind == "validation":
            say(validation_line(record))

    with bar, logging_redirect_tqdm():
        yield listen, say


def validation_line(record: Record) -> str:
    """Returns what is printed of a validation."""
    count, silent = len(record["tracks"]), record["silent"]
    reason = "the target or everything else is silent there"
    if silent == count:
        return f"Step {record['step']}: no validation song has a uSDR, as {reason}"
    line = f"Step {record['step']}: uSDR {record['usdr']:.2f} dB"
    line += f" (mixture: {record['mixture_usdr']:.2f} dB)"
    return f"{line}, without {silent} of {count} songs, as {reason}" if silent else line


def _tell_stopping() -> None:
    """Prints from a signal handler, past sys.stderr, which the signal may have interrupted."""
    with contextlib.suppress(OSError):
        end_of_bar = "\n" if os.isatty(2) else ""
        os.write(2, f"{end_of_bar}{_STOPPING}\n".encode())


def _summary(outcome: Outcome, out: Path) -> str:
    best = ""
    if outcome.best is not None:
        best = f"; best uSDR {outcome.best[1]:.2f} dB at step {outcome.best[0]}"
    where = f"{outcome.step} of {outcome.total} steps{best}"
    if outcome.stopped_by:
        saved = " and saved" if outcome.step else ""
        return f"Stopped{saved} after {where}: run the same command to continue."
    weights = out / ("best.safetensors" if outcome.best else "ema.safetensors")
    return f"Trained {where}: {weights}"
