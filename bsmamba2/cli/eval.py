"""`bsm eval`: measures models on songs whose stems are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bsmamba2.cli.engine_options import engine_options, song_bar
from bsmamba2.cli.headings import HeadedCommand, HeadedOption
from bsmamba2.errors import FileError, OptionError, one_line

if TYPE_CHECKING:
    from bsmamba2.runtime.engines import EngineOptions

_LONGEST_S = 600  # of --by-length; the engine gets a piece as one chunk


@click.command(
    cls=HeadedCommand,
    help="""Measure separation on songs whose stems are known.

    MODEL is a .onnx, .plan or .safetensors file, or 'default', the one in the package. Prints
    uSDR, cSDR and the level that is left in silence, for each song and for all, beside the figures
    of the untouched mixture.

    \b
    Examples:
      bsm eval model.onnx --data MUSDB18-HQ
      bsm eval model.onnx --against default --data MUSDB18-HQ --report report.html
      bsm eval model.onnx --data songs --stems vocals,instrumental

    The exit code is 1 if a song failed; failures are listed at the end, after the other songs.
    """,
)
@click.argument("model")
@click.option(
    "--data",
    "data_folder",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder of songs in the layout of MUSDB18-HQ; vocals and instrumental are enough.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "valid", "train"]),
    default="test",
    show_default=True,
    help="Which of its songs to use.",
)
@click.option(
    "--stems",
    metavar="NAMES",
    help="Files of each song that add up to its mixture, separated by commas, such as "
    "vocals,instrumental.  [default: what the model was trained on, or what the song has]",
)
@click.option(
    "--against",
    multiple=True,
    metavar="MODEL",
    help="Another model for the same report; may be repeated.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write an HTML page with tables, plots and spectrograms.",
)
@click.option(
    "--by-length",
    cls=HeadedOption,
    heading="More measurements",
    metavar="SECONDS",
    help="Also separate pieces of these lengths, such as 1,2,4,8,16, each on its own.",
)
@click.option(
    "--by-onset",
    is_flag=True,
    help="Also show the SDR of vocal passages, from onset to silence, by their duration.",
)
@engine_options(overlap_s=0.0)
@click.option(
    "--out",
    cls=HeadedOption,
    heading="Runs and reports",
    type=click.Path(path_type=Path),
    default=Path("eval"),
    show_default=True,
    metavar="DIR",
    help="Folder for the results of each song; a further run measures only what is missing there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    data_folder: Path,
    split: str,
    stems: str | None,
    against: tuple[str, ...],
    report: Path | None,
    by_length: str | None,
    by_onset: bool,
    overlap_s: float,
    batch: int,
    backend: EngineOptions,
    out: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Runs `bsm eval`."""
    from bsmamba2.config.file import load_config
    from bsmamba2.data.tracks import find_tracks
    from bsmamba2.evaluation.evaluate import Settings, evaluate, load_models, picture_extremes
    from bsmamba2.evaluation.results import ResultStore
    from bsmamba2.evaluation.summary import Evaluation, text_tables

    if report is not None and report.is_dir():
        raise FileError(f"{report} is a folder: name a file for the report.")
    named, lengths_s = _stem_names(stems), _lengths(by_length)
    models = load_models([model, *against], backend)
    settings = Settings(
        stems=named,
        trained_stems=models[0].engine.metadata.stems,
        overlap_s=overlap_s,
        batch=batch,
        lengths_s=lengths_s,
    )
    data = load_config("bsmamba2").data
    known = settings.stems or settings.trained_stems or data.stems
    songs = find_tracks(data_folder, split, replace(data, stems=tuple(known)))
    tracks = songs.tracks
    store = ResultStore(out)
    for name in (model.name for model in models if not model.trained):
        click.echo(f"Warning: the weights of '{name}' are untrained (random numbers).", err=True)
    with song_bar(quiet) as progress:
        results, failures = evaluate(models, tracks, settings, store, progress)
    found = Evaluation(
        data=data_folder,
        split=split,
        songs=songs,
        overlap_s=overlap_s,
        models=results,
        failures=failures,
        by_onset=by_onset,
    )
    text = json.dumps(found.document(), indent=2) if as_json else text_tables(found)
    click.echo(text.encode("utf-8", "backslashreplace"))  # names may not be UTF-8
    folders = [str(track.folder) for track in tracks]
    listed: set[str] = set()
    for failure in failures:
        if failure.error in listed:
            continue
        if any(folder in failure.error for folder in folders):  # as for other models and lengths
            listed.add(failure.error)
        sentence = f"{failure.model}: {failure.track}: {failure.error}"
        click.echo(f"Failed: {one_line(sentence)}", err=True)
    if report is not None and found.stems:  # last: a failure here must not lose the tables
        from bsmamba2.evaluation.report import write_report

        with song_bar(quiet) as progress:
            pictures = picture_extremes(results, tracks, settings, store, progress)
        write_report(report, found, pictures)
        click.echo(f"Report: {report}", err=True)
    ctx.exit(1 if failures else 0)


def _stem_names(text: str | None) -> list[str]:
    """Returns the names of --stems, each once, whatever its case."""
    if text is None:
        return []
    names = {name.lower(): name for name in map(str.strip, text.split(","))}
    if "" in names or "mixture" in names:
        raise OptionError(
            f"--stems {text}: name the stems without the mixture, such as vocals,instrumental."
        )
    return list(names.values())


def _lengths(text: str | None) -> list[int]:
    """Returns the whole seconds of --by-length, sorted, each once."""
    if text is None:
        return []
    try:
        lengths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        lengths = [0]
    if lengths[0] < 1 or lengths[-1] > _LONGEST_S:
        raise OptionError(
            f"--by-length {text}: give whole seconds up to {_LONGEST_S}, such as 1,2,4,8,16."
        )
    return lengths
