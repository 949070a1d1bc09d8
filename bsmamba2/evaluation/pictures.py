"""Spectrograms of the best and the worst minute, as small pictures in one file with the page."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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
from bsmamba2.runtime.chunking import Samples
from bsmamba2.runtime.stft import stft

if TYPE_CHECKING:
    from bsmamba2.data.tracks import Track

Picture = NDArray[np.uint8]
"""(rows from high to low frequency, columns), levels from BOTTOM_DBFS to TOP_DBFS."""

ROWS, COLUMNS = 160, 760
LOWEST_HZ, HIGHEST_HZ = 50.0, 16_000.0
BOTTOM_DBFS, TOP_DBFS = -90.0, -15.0
_LEVELS = 64  # fewer than 256, for smaller files
_N_FFT = 4096
_COLOURS = (
    (0, 0, 4),
    (60, 15, 112),
    (140, 41, 129),
    (222, 73, 104),
    (254, 159, 109),
    (252, 253, 191),
)
"""Of the levels, from low to high; even steps of lightness."""


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
    target = model.engine.artefact.model.audio.target
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
    step_s, end_s = model.chunk_s - settings.overlap_s, minute.start_s + minute.duration_s
    # Whole chunks, as in the song, and one more before them for the first one's context.
    first = math.floor(minute.start_s / step_s) - (settings.overlap_s > 0)
    last_s = math.ceil(end_s / step_s) * step_s + settings.overlap_s
    with TrackFeed(files, separator.stems[0]) as feed:
        rate = feed.sample_rate
        times = (max(0, first) * step_s, minute.start_s, end_s, last_s)
        begin, start, stop, last = (round(time * rate) for time in times)
        feed.skip(begin)
        mixture, reference, _ = feed.take(min(last, feed.frames or stop) - begin)
    estimate = separator.separate(mixture, rate)[separator.stems[0]]
    inside = slice(start - begin, stop - begin)
    return [signal[:, inside] for signal in (mixture, reference, estimate)], rate


def draw_spectrogram(samples: Samples, sample_rate: int) -> Picture:
    """Levels over time and logarithmic frequency, of the channels' mean.

    Args:
        samples: (channels, n).
        sample_rate: Hz.
    """
    mono = samples.mean(axis=0)
    mono = np.pad(mono, (0, max(0, _N_FFT - mono.size)))
    spectrum = stft(mono, n_fft=_N_FFT, hop=max(1, mono.size // COLUMNS))[:COLUMNS]
    amplitude = np.abs(spectrum) * (4 / _N_FFT)  # a sine of full scale is 1: Hann's mean is 1/2
    edges_hz = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, sample_rate / 2), ROWS + 1)
    first = np.minimum(edges_hz * _N_FFT / sample_rate, _N_FFT // 2).astype(int)
    rows = np.maximum.reduceat(amplitude, first[:-1], axis=1).T[::-1]
    level = 20 * np.log10(np.maximum(rows, 1e-6))
    share = np.clip((level - BOTTOM_DBFS) / (TOP_DBFS - BOTTOM_DBFS), 0, 1)
    return np.round(share * (_LEVELS - 1)).astype(np.uint8)


def png_data_uri(picture: Picture) -> str:
    """The picture in colours, as a URI that holds it all."""
    rows, columns = picture.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), picture], axis=1)  # 0: no filter
    at = np.linspace(0, len(_COLOURS) - 1, _LEVELS)
    palette = [
        np.interp(at, range(len(_COLOURS)), channel) for channel in zip(*_COLOURS, strict=True)
    ]
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),  # 8 bits, palette
        (b"PLTE", np.round(np.stack(palette, axis=1)).astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        png += struct.pack(">I", len(data)) + kind + data
        png += struct.pack(">I", zlib.crc32(kind + data))
    return "data:image/png;base64," + base64.b64encode(png).decode()
