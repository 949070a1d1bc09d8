"""Separates and measures one track, block by block."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import zip_longest
from pathlib import Path

import numpy as np

from bsmamba2.data.tracks import MIXTURE
from bsmamba2.errors import AudioError
from bsmamba2.evaluation.metrics import GRAINS_PER_S, EnergyMeter, GrainEnergies, level_dbfs
from bsmamba2.evaluation.onsets import are_silent, find_onsets, silent_seconds
from bsmamba2.evaluation.results import Leakage, Minute, Region, StemScores, TrackResult
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.separation.chunking import Chunking
from bsmamba2.runtime.separation.separator import RESIDUAL, Separator, Waiting

_BLOCK = 1 << 16  # samples
_MINUTE = 60 * GRAINS_PER_S  # in grains


class TrackReader:
    """The mixture and the stems of a track, read in lockstep; a context manager.

    Attributes:
        sample_rate: Hz.
    """

    def __init__(self, files: Mapping[str, Path], target: str) -> None:
        """Opens all files.

        Args:
            files: As `reference_files` returns them.
            target: The stem that is estimated; the others add up to the residual.

        Raises:
            BsmError: A file is missing, is not audio, or does not match the others.
        """
        self._target = target
        with ExitStack() as stack:
            self._readers = {
                name: stack.enter_context(AudioReader(path)) for name, path in files.items()
            }
            first = next(iter(self._readers.values()))
            for reader in self._readers.values():
                _check_alike(reader, first)
            self._stack = stack.pop_all()
        self.sample_rate, self._channels = first.sample_rate, first.channels

    def __enter__(self) -> TrackReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def separated(self, separator: Separator) -> Generator[tuple[Samples, ...]]:
        """Separates the whole track; yields (mixture, target, residual, estimates of these two).

        Raises:
            BsmError: A file is damaged, or the engine failed.
        """
        channels = self._channels
        waiting = Waiting(3 * channels)
        mixture = (block[:channels] for block in waiting.tap(self._blocks()))
        with closing(separator.stream(mixture, self.sample_rate, channels)) as blocks:
            for stems in blocks:
                estimates = stems[self._target], stems[RESIDUAL]
                true = waiting.take(estimates[0].shape[1])
                yield *true.reshape(3, channels, -1), *estimates

    def _blocks(self) -> Iterator[Samples]:
        """Yields mixture, target and residual, stacked: (3 * channels, n)."""
        for block in self._files_blocks():
            mixture, target = block.pop(MIXTURE, None), block.pop(self._target)
            if mixture is not None and not block:
                rest = mixture - target
            else:
                rest = np.zeros_like(target)
                for part in block.values():
                    rest += part
            yield np.concatenate([target + rest if mixture is None else mixture, target, rest])

    def _files_blocks(self) -> Iterator[dict[str, Samples]]:
        """Yields blocks of all files, of one length, whatever the blocks of their decoders are."""
        cut = Chunking(_BLOCK, overlap=0).split
        pieces = [cut(reader.blocks()) for reader in self._readers.values()]
        for parts in zip_longest(*pieces, fillvalue=(np.zeros((0, 0), np.float32), 0)):
            ends = [count for _, count in parts]
            if min(ends) < max(ends):
                paths = [reader.path for reader in self._readers.values()]
                short, long = (paths[ends.index(end)] for end in (min(ends), max(ends)))
                raise AudioError(f"{short} ends before {long.name}: export the track again.")
            yield {
                name: part[:, :end] for name, (part, end) in zip(self._readers, parts, strict=True)
            }


def _check_alike(stem: AudioReader, first: AudioReader) -> None:
    for what, own, other in (
        ("channels", stem.channels, first.channels),
        ("Hz sample rate", stem.sample_rate, first.sample_rate),
        ("samples", stem.frames, first.frames),
    ):
        exact = what != "samples" or (stem.exact and first.exact)
        if exact and own != other:
            raise AudioError(
                f"{stem.path} has {own} {what}, but {first.path.name} has {other}: export the "
                "track again."
            )


def score_track(
    separator: Separator,
    track: str,
    files: Mapping[str, Path],
    *,
    chunk_s: int,
    overlap_s: float,
    progress: Callable[[float], None],
) -> TrackResult:
    """Separates a track and measures it, with a few chunks in memory at a time.

    Args:
        separator: Separator around the engine to measure.
        track: The track's name.
        files: As `reference_files` returns them.
        chunk_s: The separator's chunk length in seconds, for the result.
        overlap_s: The separator's overlap in seconds, for the result.
        progress: Called with the seconds of audio that are done.

    Raises:
        BsmError: A file cannot be read, or the engine failed.
    """
    started, frames = time.perf_counter(), 0
    with TrackReader(files, separator.stems[0]) as reader:
        rate = reader.sample_rate
        meters = [EnergyMeter(rate) for _ in range(4)]
        for mixture, target, rest, *estimates in reader.separated(separator):
            for index, reference in enumerate((target, rest)):
                meters[index].add(reference, estimates[index])
                meters[2 + index].add(reference, mixture)
            frames += mixture.shape[1]
            progress(frames / rate)
    own, own_rest, mixed, mixed_rest = (meter.finish() for meter in meters)
    frames_db = own.frames_db()
    if are_silent(own.signal, own.samples):
        frames_db[:] = math.nan
    return TrackResult(
        track=track,
        duration_s=frames / rate,
        chunk_s=chunk_s,
        overlap_s=overlap_s,
        elapsed_s=time.perf_counter() - started,
        stems=dict(
            zip(separator.stems, (_scores(own, mixed), _scores(own_rest, mixed_rest)), strict=True)
        ),
        leakage=_leakage(own, mixed),
        onsets=tuple(Region(**_region(own, mixed, *onset)) for onset in find_onsets(own)),
        minutes=tuple(_minutes(own, mixed)),
        frames_db=tuple(map(float, frames_db)),
    )


def separate_minute(
    separator: Separator, files: Mapping[str, Path], minute: Minute
) -> tuple[Samples, int]:
    """Separates a minute again as it was measured, from the beginning of the track on.

    Returns:
        Mixture, reference and estimate, (3, channels, n), and their sample rate.

    Raises:
        BsmError: As for `score_track`.
    """
    done, parts = 0, []
    with TrackReader(files, separator.stems[0]) as reader:
        start = round(minute.start_s * reader.sample_rate)
        stop = round((minute.start_s + minute.duration_s) * reader.sample_rate)
        with closing(reader.separated(separator)) as blocks:
            for mixture, reference, _, estimate, _ in blocks:
                inside = slice(max(0, start - done), max(0, stop - done))
                parts.append(np.stack([mixture, reference, estimate])[..., inside])
                done += mixture.shape[1]
                if done >= stop:
                    break
    return np.concatenate(parts, axis=2), reader.sample_rate


def _scores(estimate: GrainEnergies, mixture: GrainEnergies) -> StemScores:
    """SDRs where they mean anything: a silent stem has none, and nor has a mixture of one stem."""
    frames = estimate.frames_db()
    silent = are_silent(estimate.signal, estimate.samples)
    alone = silent or are_silent(mixture.error, mixture.samples)
    return StemScores(
        usdr=math.nan if silent else estimate.usdr(),
        csdr=math.nan if silent else estimate.csdr(),
        mixture_usdr=math.nan if alone else mixture.usdr(),
        mixture_csdr=math.nan if alone else mixture.csdr(),
        frames=frames.size,
        dropped=frames.size if silent else int(np.isnan(frames).sum()),
    )


def _leakage(estimate: GrainEnergies, mixture: GrainEnergies) -> Leakage:
    silent = silent_seconds(estimate)
    samples = int(estimate.per_second(estimate.samples)[silent].sum())

    def level(energies: GrainEnergies) -> float:
        energy = float(energies.per_second(energies.error)[silent].sum())
        return level_dbfs(energy, samples) if samples else math.nan

    return Leakage(
        silent_s=int(silent.sum()), level_dbfs=level(estimate), mixture_dbfs=level(mixture)
    )


def _region(
    estimate: GrainEnergies, mixture: GrainEnergies, start: int, stop: int
) -> dict[str, float]:
    """Returns the values of a `Region`, grains [start, stop) of a track."""
    return {
        "start_s": start / GRAINS_PER_S,
        "duration_s": (stop - start) / GRAINS_PER_S,
        "sdr": estimate.usdr(start, stop),
        "mixture_sdr": mixture.usdr(start, stop),
    }


def _minutes(estimate: GrainEnergies, mixture: GrainEnergies) -> Iterator[Minute]:
    """Yields each whole minute, or the whole track if it is shorter."""
    silent, grains = silent_seconds(estimate), estimate.signal.size
    for start in range(0, max(grains - _MINUTE, 0) + 1, _MINUTE):
        stop = min(start + _MINUTE, grains)
        voiced = ~silent[start // GRAINS_PER_S : -(-stop // GRAINS_PER_S)]
        values = _region(estimate, mixture, start, stop)
        if are_silent(estimate.signal[start:stop], estimate.samples[start:stop]):
            values |= {"sdr": math.nan, "mixture_sdr": math.nan}
        yield Minute(**values, voiced_s=int(voiced.sum()))
