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
    "--valid",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Songs to validate on, of the same instruments and voices.",
)
@click.option(
    "--test",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Songs to test on, of instruments, drum kits and voices that no other song has.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 600),
    default=30.0,
    show_default=True,
    help="Length of each song.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Another seed gives other songs, the same one the same.",
)
@click.option(
    "--soundfont",
    "soundfonts",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A General MIDI soundfont, .sf2 or .sf3; may be repeated.  [default: those installed]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Songs made at the same time, each by a process; any number gives the same songs.",
)
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

    Instruments are played by FluidSynth from General MIDI soundfonts, voices are spoken by
    espeak-ng and flite and made to sing by the WORLD vocoder. DIR/train, DIR/valid and DIR/test get
    a folder for each song, with mixture.wav, vocals.wav, drums.wav, bass.wav, other.wav and
    song.json, which says what plays. Called again, it makes the songs that are missing.
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
        made = generate_songs(folder, songs, jobs=jobs, progress=bar.update)
    if not quiet:
        click.echo(
            f"{made} songs made in {folder}, {train + valid + test - made} were there.", err=True
        )
