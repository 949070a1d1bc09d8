"""What commands that run an engine over songs share: its options, and the progress bar."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import click

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
)


def backend_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --threads, --device and --precision, which a command gets as `backend`."""

    @functools.wraps(command)
    def with_backend(
        *given: Any, threads: int | None, device: str, precision: str | None, **others: Any
    ) -> Any:
        from bsmamba2.runtime.engines import EngineOptions

        backend = EngineOptions(threads=threads, device=device, precision=precision)
        return command(*given, backend=backend, **others)

    for option in reversed(_BACKEND):
        option(with_backend)
    return with_backend


class BatchSize(click.IntRange):
    """Chunks at a time: a number, or 'auto', which becomes 0."""

    name = "batch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As click's."""
        if value == "auto":
            return 0
        number: int = super().convert(value, param, ctx)
        return number


def engine_options(
    overlap_s: float, *, auto_batch: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --overlap, --batch and the options of `backend_options`.

    Args:
        overlap_s: The default.
        auto_batch: Whether --batch may be 'auto', which is the default then and becomes 0.
    """
    options = (
        click.option(
            "--overlap",
            "overlap_s",
            type=click.FloatRange(min=0),
            metavar="S",
            default=overlap_s,
            show_default=True,
            help="Seconds that two chunks share, in whole frames; half is discarded at either end. "
            "0 is the paper's way.",
        ),
        click.option(
            "--batch",
            type=BatchSize(min=1) if auto_batch else click.IntRange(min=1),
            metavar="N|auto" if auto_batch else "N",
            default="auto" if auto_batch else 1,
            show_default=True,
            help="Chunks that the engine gets at a time."
            + (" auto: 1 on a CPU, more on a GPU where its memory allows." if auto_batch else ""),
        ),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = backend_options(command)
        for option in reversed(options):
            command = option(command)
        return command

    return add


Progress = Callable[[str, float, float | None], None]
"""Takes what is being done, the seconds that are done, and all of them if known."""


@contextlib.contextmanager
def song_bar(quiet: bool) -> Iterator[Progress]:
    """A progress bar in seconds of audio, on stderr if that is a terminal; `quiet` shows none."""
    with song_bars(quiet) as bar, bar("") as progress:
        yield progress


@contextlib.contextmanager
def song_bars(quiet: bool) -> Iterator[Callable[[str], AbstractContextManager[Progress]]]:
    """Opens any number of bars below each other, from any threads; see `song_bar`.

    Log messages go above them.
    """
    from tqdm.contrib.logging import logging_redirect_tqdm

    with logging_redirect_tqdm():
        yield functools.partial(_song_bar, quiet)


@contextlib.contextmanager
def _song_bar(quiet: bool, title: str) -> Iterator[Progress]:
    from tqdm import tqdm

    bar = tqdm(desc=title, unit="s", bar_format=_BAR, leave=False, disable=quiet or None)

    def progress(title: str, done: float, total: float | None) -> None:
        bar.total = None if total is None else math.ceil(max(total, done))
        bar.set_description_str(title, refresh=False)
        bar.update(done - bar.n)

    with bar:
        yield progress
