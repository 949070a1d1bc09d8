"""The options of `bsm infer` that say which songs, and what is written of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_TIME = re.compile(r"(?:(?:(\d+):(?=[0-5]?\d:))?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


class Time(click.FloatRange):
    """Seconds, given as 75, 75.5, 1:15.5, 75:30 or 1:15:30."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """As click's."""
        if isinstance(value, float):
            return value
        match = _TIME.fullmatch(str(value))
        if not match or (":" in value and float(match[3]) >= 60):
            self.fail(f"'{value}' is no time: give seconds (75.5) or minutes (1:15.5).", param, ctx)
        hours, minutes, seconds = match.groups()
        return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


_OPTIONS = (
    click.option(
        "-o",
        "--out",
        default="out/{folder}/{track}/{stem}.{ext}",
        show_default=True,
        metavar="NAME",
        type=click.Path(),
        help="Names of the files to write; {folder} is where a song lies below a folder that is "
        "named. '-': one stem of one song goes to stdout.",
    ),
    click.option(
        "--stems",
        metavar="NAMES",
        help="Which stems, separated by commas.  [default: all the engine gives]",
    ),
    click.option(
        "--format",
        "format_name",
        type=click.Choice(["wav", "flac", "mp3", "ogg"]),
        help="File format.  [default: by the suffix in --out, or wav]",
    ),
    click.option(
        "--depth",
        type=click.Choice(["16", "24", "float"]),
        help="Bits of a sample.  [default: float for wav, 24 for flac]",
    ),
    click.option(
        "--clip",
        type=click.Choice(["none", "clamp", "rescale"]),
        default="none",
        show_default=True,
        help="Samples beyond full scale: 'none' leaves them (16 and 24 bits cut them off, and a "
        "warning counts them), 'clamp' cuts them off in every format, 'rescale' makes all stems of "
        "the song quieter by one factor.",
    ),
    click.option(
        "--picture",
        is_flag=True,
        help="Also write a PNG of each song: spectrograms of mixture and stems.",
    ),
    click.option(
        "--start",
        type=Time(),
        metavar="TIME",
        default=0.0,
        help="Where to begin in each song: seconds, or minutes as in 1:30.",
    ),
    click.option("--duration", type=Time(), metavar="TIME", help="How much of it to separate."),
    click.option("-r", "--recursive", is_flag=True, help="Search folders in folders, too."),
    click.option(
        "--skip-existing",
        is_flag=True,
        help="Leave songs alone whose files are all there, of the right length: a run that was "
        "ended goes on.",
    ),
)


def song_options(command: Command) -> Command:
    """Adds --out, --stems, --format and the other options of the songs and their files."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
