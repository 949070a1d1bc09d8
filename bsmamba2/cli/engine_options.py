"""What commands that run an engine over songs share: its options, and the progress bar."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_BAR = "{desc}: {bar}| {n:.0f}/{total_fmt} s [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""Never the inverted rate: 's/s' would not tell which."""


_BACKEND = (
    click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of the engine."
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where the engine runs.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["float32", "float16"]),
        help="Of a .safetensors engine's matrix products; float16 needs a GPU.  [default: float32]",
    ),
    click.option(
        "--allow-host-code",
        is_flag=True,
        help="Let a .plan that carries its plugin run that code: only if you trust its origin.",
    ),
)


def backend_options(command: Command) -> Command:
    """Adds --threads, --device, --precision and --allow-host-code, as `load_engine` takes them."""
    for option in reversed(_BACKEND):
        command = option(command)
    return command


def engine_options(overlap_s: float) -> Callable[[Command], Command]:
    """Adds --overlap (by default `overlap_s`), --batch and what `load_engine` takes."""
    options = (
        click.option(
            "--overlap",
            "overlap_s",
            type=click.FloatRange(min=0),
            metavar="S",
            default=overlap_s,
            show_default=True,
            help="Seconds that two chunks share; half is discarded at either end. 0 is the "
            "paper's way.",
        ),
        click.option(
            "--batch",
            type=click.IntRange(min=1),
            metavar="N",
            default=1,
            show_default=True,
            help="Chunks that the engine gets at a time.",
        ),
    )

    def add(command: Command) -> Command:
        command = backend_options(command)
        for option in reversed(options):
            command = option(command)
        return command

    return add


@contextlib.contextmanager
def song_bar(quiet: bool, title: str = "") -> Iterator[Callable[[str, float, float | None], None]]:
    """A progress bar in seconds of audio, on stderr if that is a terminal.

    Args:
        quiet: Shows none.
        title: What is being done at first.

    Yields:
        A function of what is being done, the seconds that are done, and all of them if known.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    bar = tqdm(desc=title, unit="s", bar_format=_BAR, leave=False, disable=quiet or None)

    def progress(title: str, done: float, total: float | None) -> None:
        bar.total = None if total is None else math.ceil(max(total, done))
        bar.set_description_str(title, refresh=False)
        bar.update(done - bar.n)

    with bar, logging_redirect_tqdm():
        yield progress
