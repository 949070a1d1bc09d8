"""Passages in which the vocals are active, by duration: the regions of `bsm eval --by-onset`.

The paper asks how a separator copes with intermittent vocals. Here an onset is a passage from
the entry of the vocals until they fall silent, detected on the reference alone:

1. A grain of 20 ms is active if its level is at most 40 dB below the track's loudest grain, and
   at least -60 dBFS.
2. Pauses shorter than 0.3 s, such as between words, do not end an onset.
3. Onsets shorter than 0.2 s are dropped: they are clicks and breaths.

The SDR of an onset is 10 log10((sum s^2 + 1e-7) / (sum (s - y)^2 + 1e-7)) over its samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bsmamba2.evaluation.metrics import GRAINS_PER_S, Energies, GrainEnergies

BELOW_LOUDEST_DB = 40.0
FLOOR_DBFS = -60.0
"""Lowest level of an active grain, and the level below which a second counts as silent."""
SHORTEST_PAUSE_S = 0.3
SHORTEST_ONSET_S = 0.2
DURATIONS_S = (SHORTEST_ONSET_S, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
"""Edges of the duration bins."""


def find_onsets(energies: GrainEnergies) -> list[tuple[int, int]]:
    """Finds the onsets of the reference, in order, as grains [start, stop)."""
    power = energies.signal / np.maximum(energies.samples, 1)
    if not power.size:
        return []
    threshold = max(power.max() * _power(-BELOW_LOUDEST_DB), _power(FLOOR_DBFS))
    pause, shortest = (round(s * GRAINS_PER_S) for s in (SHORTEST_PAUSE_S, SHORTEST_ONSET_S))
    regions: list[tuple[int, int]] = []
    for start, stop in _runs(power >= threshold):
        if regions and start - regions[-1][1] < pause:
            regions[-1] = (regions[-1][0], stop)
        else:
            regions.append((start, stop))
    return [(start, stop) for start, stop in regions if stop - start >= shortest]


def silent_seconds(energies: GrainEnergies) -> NDArray[np.bool_]:
    """Returns whether each whole second of the reference is below -60 dBFS: (seconds,)."""
    samples = energies.per_second(energies.samples)
    return energies.per_second(energies.signal) < _power(FLOOR_DBFS) * samples


def is_silent(samples: ArrayLike, sample_rate: int) -> bool:
    """Whether a stem, (channels, n), is below -60 dBFS in every second, so that no SDR fits it.

    The uSDR of such a stem is about -100 dB whatever the estimate, and museval refuses a stem of
    zeros. Unlike in `silent_seconds`, an incomplete last second counts.
    """
    s_CN = np.asarray(samples)
    seconds = [s_CN[:, at : at + sample_rate] for at in range(0, s_CN.shape[1], sample_rate)]
    energies = [float(np.sum(np.square(second, dtype=np.float64))) for second in seconds]
    return _all_below(np.array(energies), np.array([second.size for second in seconds]))


def are_silent(energies: Energies, samples: NDArray[np.int64]) -> bool:
    """`is_silent` of the grains of a stem, (grains,), given their energies and sizes."""
    seconds = np.arange(0, energies.size, GRAINS_PER_S)
    if not energies.size:
        return True
    return _all_below(np.add.reduceat(energies, seconds), np.add.reduceat(samples, seconds))


def _all_below(energies: Energies, samples: NDArray[np.int64]) -> bool:
    return bool((energies < _power(FLOOR_DBFS) * samples).all())


def _runs(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Returns [start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _power(level_db: float) -> float:
    return float(10 ** (level_db / 10))
