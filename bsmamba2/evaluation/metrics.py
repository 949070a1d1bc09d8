"""Signal-to-distortion ratios, from energies that are added up while a song streams by.

Everything measured here is a ratio of two energies: of the reference s and of the error s - y.
`EnergyMeter` adds both up over grains of 20 ms, so that a song of any length takes a few
kilobytes, and uSDR, cSDR, the leakage into silence and the SDR of a region are sums over grains.

Sources: uSDR is the Music Demixing Challenge's (Mitsufuji et al., arXiv 2108.13559), cSDR that of
SiSEC 2018 (Stöter et al., arXiv 1804.06267) as the package museval computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bsmamba2.errors import DataError

GRAINS_PER_S = 50
"""Grains of a second: 20 ms each."""
USDR_EPSILON = 1e-7
"""Added to both energies of the uSDR, which is thereby 0 dB where both are silent."""
FLOOR_DBFS = -120.0
"""The lowest level that is told apart from nothing."""
_BLOCK = 1 << 20  # samples converted to float64 at a time

Energies = NDArray[np.float64]
"""(grains,), sums of squares over samples and channels."""


def usdr(reference: ArrayLike, estimate: ArrayLike) -> float:
    """SDR of a whole song, 10 log10((sum s^2 + 1e-7) / (sum (s - y)^2 + 1e-7)), in dB.

    Args:
        reference: s, floats (channels, n); accumulated in float64.
        estimate: y, of the same shape.

    Raises:
        ValueError: Shapes differ.
    """
    s_CN, y_CN = _pair(reference, estimate)
    signal = error = 0.0
    for start in range(0, s_CN.shape[1], _BLOCK):
        s = s_CN[:, start : start + _BLOCK].astype(np.float64)
        signal += float(np.vdot(s, s))
        s -= y_CN[:, start : start + _BLOCK]
        error += float(np.vdot(s, s))
    return ratio_db(signal + USDR_EPSILON, error + USDR_EPSILON)


def csdr_frames(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> Energies:
    """SDR of each whole second in dB; NaN where the reference or the estimate is all zero.

    These are the frames of museval (version 4, images, window = hop = 1 s), in which the
    distortion filters cancel out of the SDR. What remains at the end of a song is left out, as
    there; a song shorter than a second is one frame. museval takes a frame's channels added up
    for zero, and so does this. One thing differs: museval raises where a whole song is silent,
    here all its frames are NaN.

    Args:
        reference: s, floats (channels, n).
        estimate: y, of the same shape.
        sample_rate: Hz.

    Returns:
        (seconds,) float64; +Inf where the estimate is perfect.

    Raises:
        ValueError: Shapes differ.
        BsmError: As `EnergyMeter`.
    """
    meter = EnergyMeter(sample_rate)
    meter.add(reference, estimate)
    return meter.finish().frames_db()


def ratio_db(signal: float, error: float) -> float:
    """10 log10(signal / error); +Inf without an error, NaN without either."""
    if error == 0:
        return math.inf if signal else math.nan
    return 10 * math.log10(signal / error) if signal else -math.inf


def level_dbfs(energy: float, samples: int) -> float:
    """Level of `samples` values whose squares add up to `energy`: 0 dBFS is an RMS of 1."""
    power = energy / samples if samples else 0.0
    return max(FLOOR_DBFS, 10 * math.log10(power)) if power > 0 else FLOOR_DBFS


@dataclass(frozen=True, kw_only=True)
class GrainEnergies:
    """What remains of a reference and its estimate: four numbers a grain."""

    signal: Energies
    """Of the reference."""
    error: Energies
    """Of reference - estimate."""
    sounding: NDArray[np.bool_]
    """(2, grains): the channels of the reference, of the estimate, do not add up to zero."""
    samples: NDArray[np.int64]
    """Values in each grain, all channels counted; fewer in the last."""

    def usdr(self, start: int = 0, stop: int | None = None) -> float:
        """uSDR of the grains [start, stop) in dB; of all by default."""
        signal = float(self.signal[start:stop].sum())
        error = float(self.error[start:stop].sum())
        return ratio_db(signal + USDR_EPSILON, error + USDR_EPSILON)

    def frames_db(self) -> Energies:
        """SDR of each whole second, as `csdr_frames`."""
        signal, error = self.per_second(self.signal), self.per_second(self.error)
        sounding = np.array([self.per_second(row) for row in self.sounding]).all(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            frames = 10 * np.log10(signal / error)
        return np.where(sounding, frames, np.nan)

    def csdr(self) -> float:
        """Median of `frames_db` in dB; NaN if all of them were dropped."""
        frames = self.frames_db()
        frames = frames[~np.isnan(frames)]
        return float(np.median(frames)) if frames.size else math.nan

    def per_second(self, values: NDArray[np.generic]) -> Energies:
        """Sums of a row of grains over whole seconds; over all of a song shorter than that."""
        seconds = values.size // GRAINS_PER_S
        whole = self.samples[: seconds * GRAINS_PER_S]
        if seconds and whole[-1] < whole[0]:  # its last grain is not full
            seconds -= 1
        if not seconds:
            return np.array([values.sum()], np.float64)
        grains = values[: seconds * GRAINS_PER_S].astype(np.float64)
        return grains.reshape(seconds, GRAINS_PER_S).sum(axis=1)


class EnergyMeter:
    """Adds up the energies of a reference and its estimate, block by block."""

    def __init__(self, sample_rate: int) -> None:
        """Starts with nothing.

        Raises:
            BsmError: The rate does not divide into grains.
        """
        if sample_rate < GRAINS_PER_S or sample_rate % GRAINS_PER_S:
            raise DataError(
                f"Songs at {sample_rate} Hz cannot be measured: "
                f"the sample rate must be a multiple of {GRAINS_PER_S} Hz."
            )
        self._size = sample_rate // GRAINS_PER_S
        self._waiting: NDArray[np.float64] | None = None  # (2, channels, < size)
        self._rows: list[NDArray[np.float64]] = []  # (5, grains) each

    def add(self, reference: ArrayLike, estimate: ArrayLike) -> None:
        """The next samples of both, (channels, any n); raises ValueError if shapes differ."""
        s_CN, y_CN = _pair(reference, estimate)
        step = self._size * max(1, _BLOCK // self._size)
        for start in range(0, s_CN.shape[1], step):
            stop = start + step
            pair = np.stack([s_CN[:, start:stop], y_CN[:, start:stop]]).astype(np.float64)
            if self._waiting is not None:
                pair = np.concatenate([self._waiting, pair], axis=2)
            whole = pair.shape[2] - pair.shape[2] % self._size
            if whole:
                self._rows.append(_grain_rows(pair[:, :, :whole], self._size))
            self._waiting = pair[:, :, whole:]

    def finish(self) -> GrainEnergies:
        """The energies of all grains; the last one may be shorter than the others."""
        rows = list(self._rows)
        if self._waiting is not None and self._waiting.shape[2]:
            rows.append(_grain_rows(self._waiting, self._waiting.shape[2]))
        signal, error, samples, *sounding = np.concatenate([np.zeros((5, 0)), *rows], axis=1)
        return GrainEnergies(
            signal=signal,
            error=error,
            sounding=np.array(sounding) > 0,
            samples=samples.astype(np.int64),
        )


def _grain_rows(pair: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """(signal, error, samples, reference sounds, estimate sounds) of grains: (5, grains)."""
    channels = pair.shape[1]
    s_CGN, y_CGN = pair.reshape(2, channels, -1, size)
    error_CGN = s_CGN - y_CGN
    return np.stack(
        [
            np.einsum("cgn,cgn->g", s_CGN, s_CGN),
            np.einsum("cgn,cgn->g", error_CGN, error_CGN),
            np.full(s_CGN.shape[1], float(channels * size)),
            *(values.sum(axis=0).any(axis=1).astype(np.float64) for values in (s_CGN, y_CGN)),
        ]
    )


def _pair(reference: ArrayLike, estimate: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as arrays of one shape (channels, n)."""
    s, y = np.asarray(reference), np.asarray(estimate)
    if s.shape != y.shape or s.ndim != 2:
        raise ValueError(f"Shapes must be equal and (channels, n), not {s.shape} and {y.shape}.")
    return s, y
