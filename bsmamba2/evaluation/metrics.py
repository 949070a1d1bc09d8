"""Signal-to-distortion ratios, computed from energies accumulated block by block.

All metrics are ratios of two energies: that of the reference s and that of the error s - y.
`EnergyMeter` accumulates both in grains of 20 ms, which takes 2 kB per second of audio;
uSDR, cSDR, the leakage into silence and the SDR of a region are computed from sums over grains.

Sources: uSDR is the metric of the Music Demixing Challenge (Mitsufuji et al., arXiv 2108.13559),
cSDR that of SiSEC 2018 (Stöter et al., arXiv 1804.06267) as the package museval computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bsmamba2.errors import DataError

GRAINS_PER_S = 50
"""Grains per second, of 20 ms each."""
USDR_EPSILON = 1e-7
"""Added to both energies in uSDR, which is therefore 0 dB if both are silent."""
FLOOR_DBFS = -120.0
"""The lowest level that is reported, also for digital silence."""
_BLOCK = 1 << 20  # samples converted to float64 at a time

Energies = NDArray[np.float64]
"""(grains,), sums of squares over samples and channels."""


def usdr(reference: ArrayLike, estimate: ArrayLike) -> float:
    """Computes the SDR of a track, 10 log10((sum s^2 + 1e-7) / (sum (s - y)^2 + 1e-7)), in dB.

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
    """Computes the SDR of each whole second in dB; NaN if reference or estimate is all zero.

    These are museval's frames (version 4, images, window = hop = 1 s), in which the distortion
    filters cancel out of the SDR. As in museval, an incomplete last second is left out, a song
    shorter than a second is one frame, and a frame is all zero if the sum of its channels is.
    Unlike museval, which raises an error, a completely silent song has NaN in all frames.

    Args:
        reference: s, floats (channels, n).
        estimate: y, of the same shape.
        sample_rate: Hz.

    Returns:
        (seconds,) float64; +Inf where the estimate is perfect.

    Raises:
        ValueError: Shapes differ.
        BsmError: As for `EnergyMeter`.
    """
    meter = EnergyMeter(sample_rate)
    meter.add(reference, estimate)
    return meter.finish().frames_db()


def ratio_db(signal: float, error: float) -> float:
    """10 log10(signal / error); +Inf if only the error is 0, NaN if both are."""
    if error == 0:
        return math.inf if signal else math.nan
    return 10 * math.log10(signal / error) if signal else -math.inf


def level_dbfs(energy: float, samples: int) -> float:
    """RMS level of `samples` values whose squares sum to `energy`: 0 dBFS is an RMS of 1."""
    power = energy / samples if samples else 0.0
    return max(FLOOR_DBFS, 10 * math.log10(power)) if power > 0 else FLOOR_DBFS


@dataclass(frozen=True, kw_only=True)
class GrainEnergies:
    """The energies of a reference and its estimate in each grain."""

    signal: Energies
    """Energy of the reference."""
    error: Energies
    """Energy of reference - estimate."""
    sounding: NDArray[np.bool_]
    """(2, grains): whether the channel sums of reference and estimate are not all zero."""
    samples: NDArray[np.int64]
    """Number of values in each grain over all channels; the last grain may have fewer."""

    def usdr(self, start: int = 0, stop: int | None = None) -> float:
        """uSDR in dB of the grains [start, stop), by default of all."""
        signal = float(self.signal[start:stop].sum())
        error = float(self.error[start:stop].sum())
        return ratio_db(signal + USDR_EPSILON, error + USDR_EPSILON)

    def frames_db(self) -> Energies:
        """SDR of each whole second; see `csdr_frames`."""
        signal, error = self.per_second(self.signal), self.per_second(self.error)
        sounding = np.array([self.per_second(row) for row in self.sounding]).all(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            frames = 10 * np.log10(signal / error)
        return np.where(sounding, frames, np.nan)

    def csdr(self) -> float:
        """Median of `frames_db` in dB; NaN if all frames are dropped."""
        frames = self.frames_db()
        frames = frames[~np.isnan(frames)]
        return float(np.median(frames)) if frames.size else math.nan

    def per_second(self, values: NDArray[np.generic]) -> Energies:
        """Sums a row of grains over whole seconds, or over all of a track shorter than a second."""
        seconds = values.size // GRAINS_PER_S
        whole = self.samples[: seconds * GRAINS_PER_S]
        if seconds and whole[-1] < whole[0]:  # its last grain is not full
            seconds -= 1
        if not seconds:
            return np.array([values.sum()], np.float64)
        grains = values[: seconds * GRAINS_PER_S].astype(np.float64)
        return grains.reshape(seconds, GRAINS_PER_S).sum(axis=1)


class EnergyMeter:
    """Accumulates the energies of a reference and its estimate, block by block."""

    def __init__(self, sample_rate: int) -> None:
        """Starts without any samples.

        Raises:
            BsmError: The sample rate is not a whole number of samples per grain.
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
        """Adds the next samples of both, (channels, any n); ValueError if shapes differ."""
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
        """Returns the energies of all grains; the last grain may be shorter."""
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
    """Rows (5, grains): signal, error, samples, and whether reference and estimate sound."""
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
    """Returns both as arrays of equal shape (channels, n)."""
    s, y = np.asarray(reference), np.asarray(estimate)
    if s.shape != y.shape or s.ndim != 2:
        raise ValueError(f"Shapes must be equal and (channels, n), not {s.shape} and {y.shape}.")
    return s, y
