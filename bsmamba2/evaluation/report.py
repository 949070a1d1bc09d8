"""The evaluation as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bsmamba2 import __version__
from bsmamba2.evaluation.charts import (
    Series,
    clock,
    plot_boxes,
    plot_histogram,
    plot_lengths,
    plot_picture,
    plot_tracks,
)
from bsmamba2.evaluation.evaluate import Extreme, ModelResults
from bsmamba2.evaluation.onsets import (
    BELOW_LOUDEST_DB,
    FLOOR_DBFS,
    SHORTEST_ONSET_S,
    SHORTEST_PAUSE_S,
)
from bsmamba2.evaluation.page import page, section
from bsmamba2.evaluation.results import TrackResult
from bsmamba2.evaluation.summary import (
    SILENT,
    UNEVEN,
    Evaluation,
    bin_onsets,
    gain,
    number,
    silence_notes,
    summarise_leakage,
    summarise_stem,
)
from bsmamba2.runtime.audio.pictures import BOTTOM_DBFS, TOP_DBFS, png
from bsmamba2.system.atomic import write_atomic

MIXTURE_NAME = "unprocessed mixture"
COLOURS = 6
"""Number of classes m0, m1, ... in the style sheet."""
_PERFECT = 1000.0  # dB, in place of infinity where columns are sorted


def write_report(path: Path, evaluation: Evaluation, extremes: Sequence[Extreme]) -> None:
    """Writes the page atomically; raises BsmError if it cannot be written."""
    text = render_report(evaluation, extremes)
    write_atomic(path, text.encode("utf-8", "backslashreplace"))  # names need not be UTF-8


def render_report(evaluation: Evaluation, extremes: Sequence[Extreme]) -> str:
    """Returns the HTML of the page, for an evaluation with at least one result."""
    title = f"Evaluation on {evaluation.data.name or evaluation.data}, {evaluation.split} split"
    parts = [
        _head(evaluation, title),
        _cards(evaluation),
        _failures(evaluation),
        _tracks_plot(evaluation),
        _tracks_table(evaluation),
        _histogram(evaluation),
        _lengths(evaluation) if evaluation.lengths_s else "",
        _onsets(evaluation) if evaluation.by_onset else "",
        _extremes(evaluation.models[0].model.name, extremes),
        _method(evaluation),
    ]
    return page(title, "\n".join(part for part in parts if part))


def _head(evaluation: Evaluation, title: str) -> str:
    results = max((m.tracks for m in evaluation.models), key=len)
    total = clock(round(sum(result.duration_s for result in results)))
    tracks = "1 track" if len(results) == 1 else f"{len(results)} tracks"
    if evaluation.songs.left_out:
        tracks += f" ({html.escape(evaluation.songs.describe_left_out())})"
    way = f"chunks overlapping by {evaluation.overlap_s:g} s"
    way = way if evaluation.overlap_s else "chunks without overlap"
    return (
        f"<h1>{html.escape(title)}</h1>\n<p class='faint'>{tracks}, {total} min of music; {way}; "
        f"bsmamba2 {__version__}</p>"
    )


def _cards(evaluation: Evaluation) -> str:
    """A card for each model with its figures over all tracks."""
    cards = []
    for index, results in enumerate(evaluation.models):
        model, about = results.model, results.model.engine.describe()
        badge = "" if model.trained else '<span class="badge">untrained</span>'
        engine = ", ".join(
            str(about[k]) for k in ("backend", "device", "precision") if about.get(k)
        )
        figures = "".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{value}<small>{html.escape(small)}</small></dd>"
            "</div>"
            for name, value, small in _figures(results, evaluation.stems)
        )
        cards.append(
            f'<section class="{_kind(index)}"><h2>{html.escape(model.name)}{badge}</h2>'
            f'<p class="note">{html.escape(engine)}; SHA-256 <code>{model.sha256[:12]}</code></p>'
            f'<dl class="figures">{figures}</dl></section>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _figures(results: ModelResults, stems: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yields (name, value, small print) of a model's card."""
    for stem in stems:
        summary = summarise_stem(results.tracks, stem)
        for name, value, more in (
            ("mean uSDR", summary.usdr, summary.usdr_gain),
            ("median cSDR", summary.csdr, summary.csdr_gain),
        ):
            small = f"{_sign(gain(more))} over the mixture" if math.isfinite(more) else ""
            unit = " dB" if math.isfinite(value) else ""
            yield f"{stem}, {name}", _number(value) + unit, small
    leakage = summarise_leakage(results.tracks)
    small = f"mixture: {_number(leakage.mixture_dbfs, 1)} dBFS, over {leakage.silent_s} s"
    name = f"level where {stems[0]} should be silent"
    yield name, f"{_number(leakage.level_dbfs, 1)} dBFS", small
    summary = summarise_stem(results.tracks, stems[0])
    small = f"of {summary.frames}, because silent"
    yield f"{stems[0]}, seconds without cSDR", str(summary.dropped), small


def _failures(evaluation: Evaluation) -> str:
    failures = evaluation.failures
    if not failures:
        return ""
    items = "".join(f"<li>{html.escape(f'{f.model}: {f.track}: {f.error}')}</li>" for f in failures)
    text = "" if evaluation.even else f"<p>{UNEVEN}</p>"
    return (
        f'<section class="failed"><h2>Failed: {len(failures)}</h2><ul>{items}</ul>{text}</section>'
    )


def _tracks_plot(evaluation: Evaluation) -> str:
    stem, names = evaluation.stems[0], _track_names(evaluation)

    def column(results: ModelResults, score: str) -> list[float]:
        found = {result.track: getattr(result.stems[stem], score) for result in results.tracks}
        return [float(found.get(name, math.nan)) for name in names]

    series = _series(evaluation, lambda results: column(results, "usdr"))
    fullest = max(evaluation.models, key=lambda m: len(m.tracks))
    own = column(fullest, "mixture_usdr")
    series.append(Series(name=MIXTURE_NAME, kind="own", values=own))
    return _section("uSDR by track", "", series, plot_tracks(names, series, f"uSDR of {stem}, dB"))


def _track_names(evaluation: Evaluation) -> list[str]:
    """Names of the tracks that any model has results for, in order."""
    return list(dict.fromkeys(r.track for m in evaluation.models for r in m.tracks))


def _tracks_table(evaluation: Evaluation) -> str:
    """One row per track; the script sorts the table by the heading that is clicked."""
    keys = [f"{stem} {score}" for stem in evaluation.stems for score in ("uSDR", "cSDR")]
    keys.append("silent dBFS")
    groups = [(m.model.name, _kind(i)) for i, m in enumerate(evaluation.models)]
    head = "".join(
        f'<th colspan="{len(keys)}" class="{kind}">{html.escape(name)}</th>'
        for name, kind in [*groups, (MIXTURE_NAME, "")]
    )
    buttons = "".join(
        f'<th scope="col"><button type="button">{html.escape(key)}</button></th>'
        for key in ["track", "length", *keys * (len(groups) + 1)]
    )
    rows = "".join(_table_row(evaluation, name) for name in _track_names(evaluation))
    fullest = max(evaluation.models, key=lambda m: len(m.tracks))
    notes = " ".join(["", *silence_notes(fullest.tracks)])
    return (
        '<section><h2>All tracks</h2><p class="note">SDRs in dB; “silent dBFS” is the level in '
        f"seconds that should be silent. Click a heading to sort.{html.escape(_sign(notes))}</p>"
        f'<div class="scroll"><table><thead><tr class="group"><th colspan="2"></th>{head}</tr>'
        f'<tr class="keys">{buttons}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _table_row(evaluation: Evaluation, name: str) -> str:
    found = [next((r for r in m.tracks if r.track == name), None) for m in evaluation.models]
    some = next(result for result in found if result is not None)
    figures = [_row_figures(result, evaluation.stems) for result in found]
    figures.append(_row_figures(some, evaluation.stems, "mixture_"))
    cells = [(name, name), (str(some.duration_s), clock(int(some.duration_s)))]
    for value, text in (pair for pairs in figures for pair in pairs):
        cells.append(("" if math.isnan(value) else str(min(value, _PERFECT)), text))
    texts = (
        f'<td data-value="{html.escape(value)}">{html.escape(text)}</td>' for value, text in cells
    )
    return f"<tr>{''.join(texts)}</tr>"


def _row_figures(
    result: TrackResult | None, stems: Sequence[str], whose: str = ""
) -> Iterator[tuple[float, str]]:
    """Yields (value, text) for one model's columns, or the mixture's if `whose` is "mixture_"."""
    for stem in stems:
        for name in ("usdr", "csdr"):
            value = getattr(result.stems[stem], whose + name) if result else math.nan
            flagged = name == "usdr" and result is not None and result.stems[stem].silent
            yield value, SILENT if flagged else _number(value)
    name = "mixture_dbfs" if whose else "level_dbfs"
    value = getattr(result.leakage, name) if result else math.nan
    yield value, _number(value, 1)


def _histogram(evaluation: Evaluation) -> str:
    series = _series(evaluation, lambda m: [v for r in m.tracks for v in r.frames_db])
    note = (
        f"All seconds in which neither the reference nor the estimate of {evaluation.stems[0]} "
        "is digital silence; values beyond the axis are counted at its ends."
    )
    plot = plot_histogram(series, f"SDR of a second of {evaluation.stems[0]}, dB")
    return _section("SDR by second", note, series, plot)


def _lengths(evaluation: Evaluation) -> str:
    stem, lengths = evaluation.stems[0], evaluation.lengths_s
    series = _series(
        evaluation, lambda m: [summarise_stem(r, stem).usdr for r in m.by_length.values()]
    )
    note = (
        "Each track is cut into pieces of one length, every piece is separated on its own, and the "
        "results are joined; the last piece is padded with zeros."
    )
    plot = plot_lengths(lengths, series, f"mean uSDR of {stem}, dB")
    return _section("uSDR by length of the input", note, series, plot)


def _onsets(evaluation: Evaluation) -> str:
    series = _series(evaluation, lambda m: bin_onsets(m.tracks))
    note = (
        "An onset is a passage from the entry of the vocals until they fall silent. They are "
        f"active in blocks of 20 ms that are within {BELOW_LOUDEST_DB:g} dB of the track's "
        f"loudest block and above {_number(FLOOR_DBFS, 0)} dBFS; pauses under "
        f"{SHORTEST_PAUSE_S:g} s do not end an onset, and onsets under {SHORTEST_ONSET_S:g} s are "
        "left out. Boxes show the quartiles and the median; n is the number of onsets."
    )
    plot = plot_boxes(series, "SDR of an onset, dB", "duration of the onset")
    return _section("SDR by duration of vocal onsets", note, series, plot)


def _extremes(model: str, extremes: Sequence[Extreme]) -> str:
    """The best and the worst minute of a model, with the spectrograms of all models."""
    parts = []
    for extreme in extremes:
        minute = extreme.minute
        times = f"{clock(minute.start_s)} to {clock(minute.start_s + minute.duration_s)}"
        parts.append(
            f"<section><h2>{extreme.title}</h2><p class='note'>{html.escape(extreme.track)}, "
            f"{times}: SDR of {html.escape(model)} {_number(minute.sdr)} dB "
            f"(unprocessed mixture: {_number(minute.mixture_sdr)} dB). "
            f"Colours range from {_number(BOTTOM_DBFS, 0)} to {_number(TOP_DBFS, 0)} dBFS.</p>"
        )
        for name, picture in extreme.pictures.items():
            uri = f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
            plot = plot_picture(uri, minute.start_s, minute.duration_s, f"spectrogram of {name}")
            parts.append(f"<h3>{html.escape(name)}</h3>{plot}")
        parts.append("</section>")
    return "".join(parts)


def _method(evaluation: Evaluation) -> str:
    stem = evaluation.stems[0]
    rules = [
        "uSDR: 10 log10((Σ s² + 1e-7) / (Σ (s \N{MINUS SIGN} y)² + 1e-7)) over all samples and "
        "channels of a track, with reference s and estimate y; the mean over tracks.",
        "cSDR: the same ratio without the 1e-7 for each whole second, as computed by museval "
        "(version 4, images); the median over seconds, then over tracks. Seconds in which the "
        "reference or the estimate is all zero are dropped. Each stem is evaluated on its own, "
        "whereas museval, given two stems at once, drops a second for both.",
        f"Level where {stem} should be silent (silent dBFS): the RMS of estimate minus reference "
        f"over all seconds in which the reference is below {_number(FLOOR_DBFS, 0)} dBFS, where 0 "
        "dBFS is an RMS of 1; the median over tracks with such seconds.",
        f"{evaluation.stems[-1]}: the mixture minus the estimate of {stem}, compared with the sum "
        f"of the other stems, or with the mixture minus {stem} in tracks without other stems.",
        "The unprocessed mixture, taken as the estimate, shows what no separation at all scores; "
        "a silent estimate would have a uSDR of 0 dB.",
        f"A track in which {stem} or {evaluation.stems[-1]} is silent, below "
        f"{_number(FLOOR_DBFS, 0)} dBFS in every second, has nothing to separate: it is left out "
        "of the means and medians of uSDR and cSDR.",
    ]
    items = "".join(f"<li>{html.escape(rule)}</li>" for rule in rules)
    return section("How it is measured", "", f"<ul class='note'>{items}</ul>")


def _series(
    evaluation: Evaluation, values: Callable[[ModelResults], Sequence[Any]]
) -> list[Series]:
    """A series for each model."""
    return [
        Series(name=results.model.name, kind=_kind(index), values=values(results))
        for index, results in enumerate(evaluation.models)
    ]


def _section(title: str, note: str, series: Sequence[Series], plot: str) -> str:
    legend = "".join(f'<span class="{s.kind}"><i></i>{html.escape(s.name)}</span>' for s in series)
    return section(title, note, f'<div class="legend">{legend}</div>{plot}')


def _kind(index: int) -> str:
    return f"m{index % COLOURS}"


def _number(value: float, digits: int = 2) -> str:
    return "\N{EN DASH}" if math.isnan(value) else _sign(number(value, digits))


def _sign(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
