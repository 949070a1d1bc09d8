"""One track through the separator and its meters, block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bsmamba2.errors import AudioError
from bsmamba2.evaluation.metrics import (
    GRAINS_PER_S,
    EnergyMeter,
    GrainEnergies,
    level_dbfs,
)
from bsmamba2.evaluation.onsets import find_onsets, silent_seconds
from bsmamba2.evaluation.results import Leakage, Minute, Region, StemScores, TrackResult
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.separation.separator import RESIDUAL, Separator

MIXTURE = "mixture"
_MINUTE_S = 60
_BLOCK = 1 << 16  # samples that are skipped at a time


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Energies of a track: for both stems, of the estimate and of the mixture in its place."""

    target: GrainEnergies
    rest: GrainEnergies
    mixture_target: GrainEnergies
    mixture_rest: GrainEnergies
    sample_rate: int
    frames: int
    """Samples per channel."""


class TrackFeed:
    """The mixture and the stems of a track, read in lockstep; a context manager."""

    def __init__(self, files: Mapping[str, Path], target: str) -> None:
        """Opens all files.

        Args:
            files: MIXTURE and every stem -> file.
            target: Which of the stems is estimated; the others added up are what is left.

        Raises:
            BsmError: A file that is missing, no audio, or unlike the mixture.
        """
        self._stack = ExitStack()
        self._target = target
        with self._stack:
            readers = {
                name: self._stack.enter_context(AudioReader(path)) for name, path in files.items()
            }
            mixture = readers[MIXTURE]
            for reader in readers.values():
                _check_alike(reader, mixture)
            self.sample_rate, self.channels = mixture.sample_rate, mixture.channels
            self.frames = mixture.frames
            self._files = {name: _File(reader) for name, reader in readers.items()}
            self._stack = self._stack.pop_all()

    def __enter__(self) -> TrackFeed:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def take(self, count: int) -> tuple[Samples, Samples, Samples]:
        """The next samples of mixture, target and rest, (channels, count) each.

        Raises:
            AudioError: A file is damaged or shorter than that.
        """
        blocks = {name: file.take(count) for name, file in self._files.items()}
        others = [b for name, b in blocks.items() if name not in (MIXTURE, self._target)]
        rest = np.zeros_like(blocks[MIXTURE])
        for block in others:
            rest += block
        return blocks[MIXTURE], blocks[self._target], rest

    def skip(self, count: int) -> None:
        """Passes over samples; errors as `take`."""
        for start in range(0, count, _BLOCK):
            self.take(min(_BLOCK, count - start))


def _check_alike(stem: AudioReader, mixture: AudioReader) -> None:
    for what, own, other in (
        ("channels", stem.channels, mixture.channels),
        ("Hz", stem.sample_rate, mixture.sample_rate),
        ("samples", stem.frames, mixture.frames),
    ):
        if own != other:
            raise AudioError(
                f"{stem.path} has {own} {what}, its mixture {other}: export the track again."
            )


class _File:
    """An audio file's samples, as many at a time as are wanted."""

    def __init__(self, reader: AudioReader) -> None:
        self._reader = reader
        self._blocks = reader.blocks()
        self._waiting = np.zeros((reader.channels, 0), np.float32)

    def take(self, count: int) -> Samples:
        parts, have = [self._waiting], self._waiting.shape[1]
        while have < count:
            block = next(self._blocks, None)
            if block is None:
                raise AudioError(
                    f"{self._reader.path} is shorter than its mixture: copy the track again."
                )
            parts.append(block)
            have += block.shape[1]
        joined = np.concatenate(parts, axis=1)
        self._waiting = joined[:, count:]
        return joined[:, :count]


def measure_track(
    separator: Separator,
    files: Mapping[str, Path],
    progress: Callable[[float], None] | None = None,
) -> Measured:
    """Separates a track and adds up energies; holds a few chunks at a time.

    Args:
        separator: Of the engine to be measured.
        files: MIXTURE and every stem -> file.
        progress: Called with the seconds of audio that are done.

    Raises:
        BsmError: A file cannot be read, or the engine failed; one sentence.
    """
    target = separator.stems[0]
    done = 0
    with TrackFeed(files, target) as feed, AudioReader(files[MIXTURE]) as reader:
        meters = [EnergyMeter(feed.sample_rate) for _ in range(4)]
        for stems in separator.stream(reader.blocks(), reader.sample_rate, reader.channels):
            count = stems[target].shape[1]
            mixture, voice, rest = feed.take(count)
            estimates = (stems[target], stems[RESIDUAL])
            pairs = [*zip((voice, rest), estimates, strict=True), (voice, mixture), (rest, mixture)]
            for meter, (reference, estimate) in zip(meters, pairs, strict=True):
                meter.add(reference, estimate)
            done += count
            if progress:
                progress(done / feed.sample_rate)
        energies = [meter.finish() for meter in meters]
    return Measured(
        target=energies[0],
        rest=energies[1],
        mixture_target=energies[2],
        mixture_rest=energies[3],
        sample_rate=feed.sample_rate,
        frames=done,
    )


def score_track(
    separator: Separator,
    track: str,
    files: Mapping[str, Path],
    *,
    chunk_s: int,
    overlap_s: float,
    progress: Callable[[float], None] | None = None,
) -> TrackResult:
    """All that is reported of a track; arguments and errors as `measure_track`."""
    started = time.perf_counter()
    measured = measure_track(separator, files, progress)
    target, rest = separator.stems
    return TrackResult(
        track=track,
        duration_s=measured.frames / measured.sample_rate,
        chunk_s=chunk_s,
        overlap_s=overlap_s,
        elapsed_s=time.perf_counter() - started,
        stems={
            target: _scores(measured.target, measured.mixture_target),
            rest: _scores(measured.rest, measured.mixture_rest),
        },
        leakage=_leakage(measured.target, measured.mixture_target),
        onsets=tuple(Region(**_region(measured, *onset)) for onset in find_onsets(measured.target)),
        minutes=tuple(_minute(measured, *minute) for minute in _minutes(measured.target)),
        frames_db=tuple(map(float, measured.target.frames_db())),
    )


def _scores(estimate: GrainEnergies, mixture: GrainEnergies) -> StemScores:
    frames = estimate.frames_db()
    return StemScores(
        usdr=estimate.usdr(),
        csdr=estimate.csdr(),
        mixture_usdr=mixture.usdr(),
        mixture_csdr=mixture.csdr(),
        frames=frames.size,
        dropped=int(np.isnan(frames).sum()),
    )


def _leakage(estimate: GrainEnergies, mixture: GrainEnergies) -> Leakage:
    silent = silent_seconds(estimate)
    samples = int(estimate.per_second(estimate.samples)[silent].sum())

    def level(energies: GrainEnergies) -> float:
        energy = float(energies.per_second(energies.error)[silent].sum())
        return level_dbfs(energy, samples) if samples else float("nan")

    return Leakage(
        silent_s=int(silent.sum()), level_dbfs=level(estimate), mixture_dbfs=level(mixture)
    )


def _region(measured: Measured, start: int, stop: int) -> dict[str, float]:
    """A `Region`'s values, of grains [start, stop) of a track."""
    return {
        "start_s": start / GRAINS_PER_S,
        "duration_s": (stop - start) / GRAINS_PER_S,
        "sdr": measured.target.usdr(start, stop),
        "mixture_sdr": measured.mixture_target.usdr(start, stop),
    }


def _minute(measured: Measured, start: int, stop: int) -> Minute:
    silent = silent_seconds(measured.target)
    seconds = silent[start // GRAINS_PER_S : -(-stop // GRAINS_PER_S)]
    return Minute(**_region(measured, start, stop), voiced_s=int((~seconds).sum()))


def _minutes(energies: GrainEnergies) -> Iterator[tuple[int, int]]:
    """Grains of each whole minute; of all of a track that is shorter."""
    grains, minute = energies.signal.size, _MINUTE_S * GRAINS_PER_S
    if grains < minute:
        yield 0, grains
    for start in range(0, grains - minute + 1, minute):
        yield start, start + minute
