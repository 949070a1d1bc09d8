"""Where a stem sounds: the segments that training mixtures are made of.

The rule (the authors' loader): a stem is cut into windows of `audio.chunk_s` seconds that overlap
by half, each window into ten pieces. In each channel, the threshold is the 0.15 quantile of the
RMS of all pieces of the stem, but at least 1e-3. A window is salient if, in every channel, more
than half of its pieces exceed the threshold. A track shorter than a window is one window that ends
in zeros.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from bsmamba2.config import AudioConfig, DataConfig
from bsmamba2.data.tracks import Track
from bsmamba2.errors import BsmError, DataError
from bsmamba2.files import atomic_path, c_path

logger = logging.getLogger(__name__)

CACHE_FOLDER = ".bsmamba2"
"""Beside the folders of the splits."""
_VERSION = 1  # of the rule and of the cache's format
_BLOCK = 1 << 17  # samples per channel read at a time


@dataclass(frozen=True, kw_only=True)
class SalientStem:
    """The salient segments of a stem in one track, at least one."""

    track: Track
    starts: NDArray[np.int64]
    """First samples, ascending."""


Salience = dict[str, tuple[SalientStem, ...]]
"""Stem -> the tracks in which it has salient segments."""


def find_salient(
    tracks: Sequence[Track], data: DataConfig, audio: AudioConfig, cache: Path | None = None
) -> Salience:
    """Salient segments of all stems of all tracks; from the cache where that is possible.

    Args:
        tracks: Of one split.
        data: Stems and the rule's numbers.
        audio: Length of a window.
        cache: Folder to keep the results in; by default `CACHE_FOLDER` in the data folder.

    Raises:
        DataError: Files that cannot be read, all of them, or a stem that is salient nowhere.
    """
    found: Salience = dict.fromkeys(data.stems, ())
    problems: list[str] = []
    for track in tracks:
        try:
            starts = _track_starts(track, data, audio, cache)
        except DataError as error:
            problems.append(str(error))
            continue
        for stem in data.stems:
            if starts[stem]:
                positions = np.array(starts[stem], dtype=np.int64)
                found[stem] += (SalientStem(track=track, starts=positions),)
    problems += [
        f"{stem} is silent in all {len(tracks)} tracks: add songs that have it."
        for stem in data.stems
        if not found[stem] and not problems
    ]
    if problems:
        raise DataError("\n".join(problems))
    return found


def salient_starts(path: Path, data: DataConfig, audio: AudioConfig) -> list[int]:
    """First samples of the salient windows of one file, read once in blocks.

    Raises:
        DataError: The file cannot be read or holds NaN or Inf.
    """
    try:
        with soundfile.SoundFile(c_path(path)) as file:
            starts, edges = _piece_edges(file.frames, data, audio.chunk_samples)
            sums = _running_energy(file, np.unique(edges), path)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    where = np.searchsorted(np.unique(edges), edges)  # (windows, pieces + 1)
    energy = sums[where[:, 1:]] - sums[where[:, :-1]]  # (windows, pieces, channels)
    rms = np.sqrt(np.maximum(energy, 0) / np.diff(edges)[:, :, None])
    quantile = np.quantile(rms, data.salient_quantile, axis=(0, 1))  # (channels,)
    threshold = np.maximum(quantile, data.salient_floor)
    share = (rms > threshold).mean(axis=1)  # (windows, channels)
    return [int(start) for start in starts[(share > data.salient_share).all(axis=1)]]


def _piece_edges(
    frames: int, data: DataConfig, window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts of the windows (windows,) and edges of their pieces (windows, pieces + 1)."""
    step = max(1, round(window * (1 - data.salient_overlap)))
    starts = np.arange(max(frames - window, 0) // step + 1, dtype=np.int64) * step
    pieces = np.arange(data.salient_pieces + 1, dtype=np.int64)
    return starts, starts[:, None] + pieces * window // data.salient_pieces


def _running_energy(
    file: soundfile.SoundFile, edges: NDArray[np.int64], path: Path
) -> NDArray[np.float64]:
    """Sum of squares from the beginning to each edge, float64 (edges, channels)."""
    sums = np.zeros((len(edges), file.channels))
    first = 0
    while first + 1 < len(edges):
        # Up to the last edge that a block reaches, but one interval at least.
        last = int(np.searchsorted(edges, edges[first] + _BLOCK, side="right")) - 1
        last = max(last, first + 1)
        wanted = int(edges[last] - edges[first])
        block = file.read(wanted, dtype="float32", always_2d=True, fill_value=0.0)
        energy = np.add.reduceat(
            np.square(block, dtype=np.float64), edges[first:last] - edges[first], axis=0
        )
        if not np.isfinite(energy).all():
            raise DataError(f"{path} holds NaN or infinite samples: replace it.")
        sums[first + 1 : last + 1] = sums[first] + np.cumsum(energy, axis=0)
        first = last
    return sums


def _track_starts(
    track: Track, data: DataConfig, audio: AudioConfig, cache: Path | None
) -> dict[str, list[int]]:
    """Stem -> starts of one track, cached."""
    folder = track.folder.parent.parent / CACHE_FOLDER if cache is None else cache
    key = _key(track, data, audio)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = folder / f"salience-{digest[:24]}.json"
    kept = _load(path, key)
    if kept is not None:
        return kept
    starts = {stem: salient_starts(track.stem(stem), data, audio) for stem in data.stems}
    try:
        with atomic_path(path) as partial:
            partial.write_text(json.dumps({"key": key, "starts": starts}), "utf-8")
    except BsmError as error:
        logger.warning("Salient segments are not kept, name a cache folder: %s", error)
    return starts


def _key(track: Track, data: DataConfig, audio: AudioConfig) -> dict[str, Any]:
    """All that the result depends on."""
    try:
        sizes = {stem: track.stem(stem).stat().st_size for stem in data.stems}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return {
        "version": _VERSION,
        "track": f"{track.folder.parent.name}/{track.name}",
        "bytes": sizes,
        "window": audio.chunk_samples,
        "overlap": data.salient_overlap,
        "pieces": data.salient_pieces,
        "quantile": data.salient_quantile,
        "floor": data.salient_floor,
        "share": data.salient_share,
    }


def _load(path: Path, key: dict[str, Any]) -> dict[str, list[int]] | None:
    """What was kept, None if there is nothing or it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(path.read_text("utf-8"))
        if kept["key"] == key:
            return {stem: [int(s) for s in kept["starts"][stem]] for stem in key["bytes"]}
    return None
