"""Spectrograms of the best and the worst minute, as small pictures in one file with the page."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.evaluation.evaluate import (
    Model,
    ModelResults,
    Progress,
    Settings,
    make_separator,
    track_files,
)
from bsmamba2.evaluation.measure import MIXTURE, TrackFeed
from bsmamba2.evaluation.results import Minute, ResultStore
from bsmamba2.evaluation.summary import find_extreme_minutes
from bsmamba2.runtime.audio.pictures import COLUMNS, ROWS, Picture, draw_spectrogram, png
from bsmamba2.runtime.audio.samples import Samples

if TYPE_CHECKING:
    from bsmamba2.data.tracks import Track


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """A minute, and what it looks like."""

    title: str
    track: str
    minute: Minute
    pictures: dict[str, Picture]
    """Mixture, reference, then the estimate of each model."""


def picture_extremes(
    results: Sequence[ModelResults],
    tracks: Sequence[Track],
    settings: Settings,
    store: ResultStore,
    progress: Progress | None = None,
) -> list[Extreme]:
    """The first model's best and worst minutes, separated once more by the models that have them.

    Pictures are kept in the store as well. The minutes are cut into chunks as in the song itself,
    so that they show the audio that was measured.

    Raises:
        BsmError: A file that could be read before cannot be now, or nothing can be written.
    """
    by_name = {track.name: track for track in tracks}
    minutes = find_extreme_minutes(results[0].tracks) if results else []
    titles = ["Best minute", "Worst minute"] if len(minutes) > 1 else ["The only minute"]
    extremes = []
    for title, (result, minute) in zip(titles, minutes, strict=False):
        if progress:
            progress(f"{title} of {result.track}", 0, minute.duration_s)
        track = by_name[result.track]
        pictures: dict[str, Picture] = {}
        for model in (r.model for r in results if result.track in {t.track for t in r.tracks}):
            pictures |= _pictures(model, track, minute, settings, store)
        extremes.append(Extreme(title=title, track=track.name, minute=minute, pictures=pictures))
    return extremes


def _pictures(
    model: Model, track: Track, minute: Minute, settings: Settings, store: ResultStore
) -> dict[str, Picture]:
    """Mixture, reference and the model's estimate; from the store if they are there."""
    files = track_files(track, settings.stems)
    target = model.engine.metadata.model.audio.target
    about = [model.sha256, settings.overlap_s, minute.start_s, minute.duration_s, ROWS, COLUMNS]
    names = [MIXTURE, f"{target}, reference", f"{target}, {model.name}"]
    key = store.key(files, {"pictures": about})
    pictures = store.load_pictures(track.name, key)
    if pictures is None:
        signals, rate = _separated(model, files, minute, settings)
        pictures = np.stack([draw_spectrogram(signal, rate) for signal in signals])
        store.save_pictures(track.name, key, pictures)
    return dict(zip(names, pictures, strict=True))


def _separated(
    model: Model, files: dict[str, Path], minute: Minute, settings: Settings
) -> tuple[list[Samples], int]:
    """Mixture, reference and estimate of a minute, and their sample rate."""
    separator = make_separator(model, overlap_s=settings.overlap_s, batch=settings.batch)
    step_s, end_s = separator.step_s, minute.start_s + minute.duration_s
    # Whole chunks, as in the song, and one more before them for the first one's context.
    first = math.floor(minute.start_s / step_s) - (step_s < model.chunk_s)
    last_s = math.ceil(end_s / step_s) * step_s + model.chunk_s - step_s
    with TrackFeed(files, separator.stems[0]) as feed:
        rate = feed.sample_rate
        times = (max(0, first) * step_s, minute.start_s, end_s, last_s)
        begin, start, stop, last = (round(time * rate) for time in times)
        feed.skip(begin)
        mixture, reference, _ = feed.take(min(last, feed.frames or stop) - begin)
    estimate = separator.separate(mixture, rate)[separator.stems[0]]
    inside = slice(start - begin, stop - begin)
    return [signal[:, inside] for signal in (mixture, reference, estimate)], rate


def png_data_uri(picture: Picture) -> str:
    """The picture in colours, as a URI that holds it all."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()
