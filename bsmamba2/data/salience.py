"""Salient segments: the parts of a stem that are not silent, from which mixtures are made.

A stem is cut into windows of `audio.chunk_s` seconds that overlap by half, each window into ten
pieces. In each channel, the threshold is the 0.15 quantile of the RMS of the window's pieces, but
at least 1e-3. A window is salient if, in every channel, more than half of its pieces exceed the
threshold (the authors' code). In practice only the floor of 1e-3 decides: unless pieces are
equally loud, eight of ten exceed the quantile. A track shorter than a window is padded with zeros.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.config.training import DataConfig
from bsmamba2.data.salience_cache import SalienceCache
from bsmamba2.data.tracks import FoundTracks, Track
from bsmamba2.errors import DataError, short_reason
from bsmamba2.system.files import c_path

logger = logging.getLogger(__name__)

_BLOCK = 1 << 16  # samples per channel read at a time, so that a block fits the CPU's cache


@dataclass(frozen=True, kw_only=True)
class SalientStem:
    """The salient segments of a stem in one track, at least one."""

    track: Track
    starts: NDArray[np.int64]
    """First sample of each segment, ascending."""


Salience = dict[str, tuple[SalientStem, ...]]
"""Stem -> the tracks in which it has salient segments."""
_Scanned = tuple[dict[str, list[int]], list[str]]
"""Stem -> starts for the readable stems of a track, and a sentence for each of the others."""


def find_salient(
    tracks: Sequence[Track],
    data: DataConfig,
    audio: AudioConfig,
    cache: Path | None = None,
    *,
    jobs: int = 1,
    report: Callable[[str], None] = lambda _: None,
) -> Salience:
    """Finds the salient segments of all stems of all tracks, using the cache where possible.

    Args:
        tracks: The tracks of one split.
        data: Names of the stems, and the parameters of the rule.
        audio: Length of a window.
        cache: Folder of the cache; by default a hidden one in the data folder.
        jobs: Tracks read at the same time, one thread each.
        report: Called with a sentence before the search, unless the cache has all tracks.

    Raises:
        DataError: A line for every file that cannot be read, and for every stem without any
            salient segment.
    """
    store = SalienceCache(cache, data, audio)
    kept = [store.load(track) for track in tracks]
    if missing := kept.count(None):
        songs = "1 song" if missing == 1 else f"{missing} songs"
        report(f"Searching {songs} for salient segments; the result is kept for the next run.")

    def scan(track: Track, starts: dict[str, list[int]] | None) -> _Scanned:
        return _scan(track, data, audio, store) if starts is None else (starts, [])

    with ThreadPoolExecutor(jobs) as pool:  # reading and squaring release the GIL
        scanned = list(pool.map(scan, tracks, kept))
    problems = [line for _, lines in scanned for line in lines]
    salience: Salience = {}
    for stem in data.stems:
        places = [
            (track, np.array(starts.get(stem, []), dtype=np.int64))
            for track, (starts, _) in zip(tracks, scanned, strict=True)
        ]
        salience[stem] = tuple(SalientStem(track=t, starts=s) for t, s in places if len(s))
        if not salience[stem] and any(stem in starts for starts, _ in scanned):
            problems.append(
                f"{stem} has no salient segment in any readable song of "
                f"{tracks[0].folder.parent}: add songs that contain it, longer than "
                f"{data.salient_share * audio.chunk_s:g} s."
            )
    if problems:
        raise DataError("\n".join(problems))
    return salience


def salient_tracks(found: FoundTracks, salience: Salience) -> FoundTracks:
    """Leaves out the tracks of which no stem has a salient segment: none is ever drawn."""
    drawn = {place.track.name for places in salience.values() for place in places}
    others = [track.name for track in found.tracks if track.name not in drawn]
    return FoundTracks(
        tracks=[track for track in found.tracks if track.name in drawn],
        left_out={**found.left_out, **dict.fromkeys(others, "no salient segments")},
    )


def salient_starts(path: Path, data: DataConfig, audio: AudioConfig) -> list[int]:
    """Returns the first sample of each salient window of a file, which is read once, in blocks.

    Raises:
        DataError: The file cannot be read or holds NaN or Inf.
    """
    try:
        with soundfile.SoundFile(c_path(path)) as file:
            starts, edges = _piece_edges(file.frames, data, audio.chunk_samples)
            grid, where = np.unique(np.append(edges, file.frames), return_inverse=True)
            sums = _running_energy(file, grid, path)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise DataError(f"{path} cannot be read ({short_reason(error)}): copy it again.") from error
    running = sums[where[:-1].reshape(edges.shape)]  # (windows, pieces + 1, channels)
    energy = np.maximum(np.diff(running, axis=1), 0)  # (windows, pieces, channels)
    rms = np.sqrt(energy / np.diff(edges, axis=1)[:, :, None])
    quantile = np.quantile(rms, data.salient_quantile, axis=1, keepdims=True)
    share = (rms > np.maximum(quantile, data.salient_floor)).mean(axis=1)  # (windows, channels)
    return [int(start) for start in starts[(share > data.salient_share).all(axis=1)]]


def _piece_edges(
    frames: int, data: DataConfig, window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns window starts (windows,) and edges of their pieces (windows, pieces + 1)."""
    step = max(1, round(window * (1 - data.salient_overlap)))
    starts = np.arange(max(frames - window, 0) // step + 1, dtype=np.int64) * step
    pieces = np.arange(data.salient_pieces + 1, dtype=np.int64)
    return starts, starts[:, None] + pieces * window // data.salient_pieces


def _running_energy(
    file: soundfile.SoundFile, grid: NDArray[np.int64], path: Path
) -> NDArray[np.float64]:
    """Returns the energy from the file's start to each grid point, float64 (points, channels)."""
    sums = np.zeros((len(grid), file.channels))
    first = 0
    while first + 1 < len(grid):
        # Read up to the last grid point within a block, but at least one interval.
        last = int(np.searchsorted(grid, grid[first] + _BLOCK, side="right")) - 1
        last = max(last, first + 1)
        wanted = int(grid[last] - grid[first])
        block = file.read(wanted, dtype="float32", always_2d=True, fill_value=0.0)
        with np.errstate(invalid="ignore"):  # NaN is reported below
            squares = np.square(block, dtype=np.float64)
        energy = np.add.reduceat(squares, grid[first:last] - grid[first], axis=0)
        if not np.isfinite(energy).all():
            raise DataError(f"{path} holds NaN or infinite samples: replace it.")
        sums[first + 1 : last + 1] = sums[first] + np.cumsum(energy, axis=0)
        first = last
    return sums


def _scan(track: Track, data: DataConfig, audio: AudioConfig, store: SalienceCache) -> _Scanned:
    """Searches the stems of a track; stores the result if all are readable."""
    logger.info("Looking for salient segments in %s", track.folder)
    starts: dict[str, list[int]] = {}
    problems: list[str] = []
    for stem in data.stems:
        try:
            starts[stem] = salient_starts(track.stem(stem), data, audio)
        except DataError as error:
            problems.append(str(error))
    if not problems:
        store.save(track, starts)
    return starts, problems
