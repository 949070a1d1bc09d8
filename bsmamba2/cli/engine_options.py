"""The options and the progress bar of the commands that run an engine."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import click

from bsmamba2.cli.headings import HeadedOption

_BAR = "{desc}: {bar}| {n:.0f}/{total_fmt} s [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""Never shows the inverted rate, as tqdm would for slow engines: both have the unit 's/s'."""

_BACKEND = (
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="CPU threads of the engine, at most the cores that this process may use.  [default: "
        "one for each of them]",
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
        help="Precision of a .safetensors engine's matrix products; float16 needs a GPU. The "
        "precision of other engines is fixed.  [default: float32]",
    ),
)


def backend_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --threads, --device and --precision, which are passed to a command as `backend`."""

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
    """The chunks of a batch: a number, or 'auto', which becomes 0."""

    name = "batch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Converts the text; see the class."""
        if value == "auto":
            return 0
        try:
            int(value)
        except ValueError:
            self.fail(f"'{value}' is neither a whole number nor auto.", param, ctx)
        number: int = super().convert(value, param, ctx)
        return number


def engine_options(
    overlap_s: float, *, auto_batch: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --overlap, --batch and the options of `backend_options`.

    Args:
        overlap_s: Default of --overlap.
        auto_batch: Whether --batch also takes 'auto', which is then the default and becomes 0.
    """
    options = (
        click.option(
            "--overlap",
            "overlap_s",
            cls=HeadedOption,
            heading="Quality and speed",
            type=click.FloatRange(min=0),
            metavar="S",
            default=overlap_s,
            show_default=True,
            help="Seconds by which neighbouring chunks overlap: each discards half of the overlap, "
            "and they crossfade over 50 ms where they meet. 0: side by side, as in the paper.",
        ),
        click.option(
            "--batch",
            type=BatchSize(min=1) if auto_batch else click.IntRange(min=1),
            metavar="N|auto" if auto_batch else "N",
            default="auto" if auto_batch else 1,
            show_default=True,
            help="Chunks that the engine processes at a time."
            + (" auto: 1 on a CPU, more on a GPU if its memory allows." if auto_batch else ""),
        ),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = backend_options(command)
        for option in reversed(options):
            command = option(command)
        return command

    return add


Progress = Callable[[str, float, float | None], None]
"""Takes what is being done, the seconds done, and the total seconds if known."""


@contextlib.contextmanager
def song_bar(quiet: bool) -> Iterator[Progress]:
    """Shows progress in seconds of audio, on stderr if that is a terminal and not `quiet`."""
    with song_bars(quiet) as bar, bar("") as progress:
        yield progress


@contextlib.contextmanager
def song_bars(quiet: bool) -> Iterator[Callable[[str], AbstractContextManager[Progress]]]:
    """Returns a function that opens bars, from any thread, one below the other; see `song_bar`.

    Log messages appear above the bars.
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
