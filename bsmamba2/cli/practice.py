"""`bsm practice`: makes songs to train, test and demonstrate with."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--train", type=click.IntRange(min=0), default=100, show_default=True, help="Songs to train on."
)
@click.option(
    "--valid", type=click.IntRange(min=0), default=10, show_default=True, help="Validation songs."
)
@click.option(
    "--test",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Held-out songs, of instruments and voices that no other song has.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    help="Length of each song.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all.")
@click.option(
    "--soundfont",
    "soundfonts",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A General MIDI soundfont; may be repeated.  [default: those installed]",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
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
    """Make practice songs in MUSDB's layout.

    Instruments are played by FluidSynth, voices sung by espeak-ng and flite through the WORLD
    vocoder. DIR/train, DIR/valid and DIR/test get a folder a song with mixture.wav, vocals.wav,
    drums.wav, bass.wav and other.wav. Called again, it makes what is missing.
    """
    from tqdm import tqdm

    from bsmamba2.data.practice.generate import PracticeSet, generate_songs

    songs = PracticeSet(
        counts={"train": train, "valid": valid, "test": test},
        seconds=seconds,
        seed=seed,
        soundfonts=soundfonts,
    )
    with tqdm(unit="song", total=train + valid + test, disable=quiet or None) as bar:
        made = generate_songs(folder, songs, jobs=jobs, progress=lambda _: bar.update())
    if not quiet:
        click.echo(f"{made} songs made in {folder}.", err=True)
