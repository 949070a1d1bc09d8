"""`bsm practice`: makes songs for training, tests and demonstrations."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from bsmamba2.cli.headings import HeadedCommand, HeadedOption

_whole_number = functools.partial(
    click.option, metavar="N", type=click.IntRange(min=0), show_default=True
)


@click.command(
    cls=HeadedCommand,
    help="""Make synthetic songs with known stems.

    FluidSynth plays the instruments from General MIDI soundfonts; espeak-ng and flite speak the
    words, which the WORLD vocoder turns into singing. DIR has the layout of MUSDB18-HQ: a folder
    for each song in train/, valid/ and test/, with mixture.wav, vocals.wav, drums.wav, bass.wav,
    other.wav, and song.json, which lists what plays. Run again, the command makes only the songs
    that are missing.

    \b
    Examples:
      bsm practice songs --train 100 --valid 10 --test 20 --jobs 2
      bsm train --config small --data songs --out run
    """,
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@_whole_number("--train", default=100, help="Songs to train on.")
@_whole_number(
    "--valid", default=10, help="Songs to validate on, with the same instruments and voices."
)
@_whole_number(
    "--test",
    default=20,
    help="Songs to test on, with instruments, drum kits and voices that no other song has.",
)
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(1, 600),
    default=30.0,
    show_default=True,
    help="Length of each song in seconds.",
)
@_whole_number("--seed", default=0, help="Seed of the songs; the same seed makes the same songs.")
@click.option(
    "--soundfont",
    "soundfonts",
    cls=HeadedOption,
    heading="How they are made",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A General MIDI soundfont, .sf2 or .sf3; may be repeated.  [default: those installed]",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Songs to make at a time, each in a process of its own; the songs stay the same.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary.")
def command(
    folder: Path,
    train: int,
    valid: int,
    test: int,
    seconds: float,
    seed: int,
    soundfonts: tuple[Path, ...],
    jobs: int,
    quiet: bool,
) -> None:
    """Runs `bsm practice`."""
    from tqdm import tqdm

    from bsmamba2.data.practice.generate import PracticeSet, generate_songs

    songs = PracticeSet(
        counts={"train": train, "valid": valid, "test": test},
        seconds=seconds,
        seed=seed,
        soundfonts=soundfonts,
    )
    with tqdm(unit="song", total=train + valid + test, disable=quiet or None) as bar:
        made = generate_songs(folder, songs, jobs=jobs, progress=bar.update)
    if not quiet:
        click.echo(
            f"Made {made} song{'s' * (made != 1)} in {folder}; "
            f"{train + valid + test - made} existed already.",
            err=True,
        )
